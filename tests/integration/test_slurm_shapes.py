"""Containers, arrays, and Jobs that go as one array: on a real cluster."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic import JsonValue

from rig.hpc import Hpc, create_of, gone, outputs_of, ran, settled, start, until
from rig.slurm import Cluster, cluster
from rig.slurm_site import Site
from windlass_adapters.base import State
from windlass_adapters.slurm import SlurmAdapter
from windlass_schemas import Reason

SIF = Path(__file__).parents[1] / "data/apptainer/busybox.sif"
HARD = "a 'b' \"c\" $(id) `id` \\ \n ü € , ; * = = ~ #"


@pytest.fixture(scope="module")
def site() -> Iterator[Cluster]:
    """One cluster for all tests."""
    with cluster(Site()) as found:
        yield found


@pytest.fixture(scope="module")
def path(site: Cluster) -> str:
    """The folder with ``apptainer`` and ``singularity``."""
    return str(site.containers)


@pytest.fixture
def hpc(site: Cluster, path: str, tmp_path: Path) -> Hpc:
    """A Target of the test's own."""
    return Hpc(site, tmp_path, grace="1s", setup=[f"export PATH={path}:$PATH"])


@pytest.fixture
async def adapter(hpc: Hpc) -> AsyncIterator[SlurmAdapter]:
    """Its adapter, opened."""
    async with hpc.adapter() as opened:
        yield opened


INSIDE = """\
#!/bin/sh
printf '%s\\0' "$@" > out
printf '%s\\0' "$HARD" "$SLURM_JOB_ID" "$SECRET_OF_LOGIN" "$PWD" >> out
cat "$WINDLASS_INPUT_WINE" >> out
[ -d "$HOME" ] && echo home >> out || echo no home >> out
"""


@pytest.mark.parametrize("runtime", ["apptainer", "singularity"])
async def test_values_reach_the_program_in_a_container_exactly(
    hpc: Hpc, adapter: SlurmAdapter, runtime: str
) -> None:
    """An image beside the document; nothing of the home or of the login's environment is inside."""
    job = hpc.of(
        "train",
        {
            "entrypoint": "main.sh",
            "image": "busybox.sif",
            "params": {"x": HARD},
            "env": {"HARD": HARD},
            "inputs": {"wine": {"file": "wine.csv"}},
            "outputs": {"out": "out"},
            "options": {"container": {"runtime": runtime}},
        },
        kept={"main.sh": INSIDE, "busybox.sif": SIF.read_bytes(), "wine.csv": "1,2\n"},
    )
    found = await ran(adapter, job)
    log = (await adapter.read_log(found.external, "stderr", 0)).data
    assert found.state is State.SUCCEEDED, f"{found.message} {log!r}"
    told = outputs_of(hpc, found)["out"].split(b"\0")
    place = hpc.place(job.owner, found.external)
    work = f"{hpc.root}/jobs/{place.owner}/{place.token}/work"
    assert told[:2] == [b"--x", HARD.encode()]
    assert told[2:6] == [HARD.encode(), str(found.detail["job"]).encode(), b"", work.encode()]
    assert told[6] == b"1,2\nno home\n"


async def test_a_path_on_the_cluster_with_a_folder_bound_into_it(
    hpc: Hpc, adapter: SlurmAdapter
) -> None:
    """As sites keep their images and data."""
    images = hpc.cluster.here(hpc.root.parent / f"{hpc.root.name}.images")
    images.mkdir()
    (images / "busybox.sif").write_bytes(SIF.read_bytes())
    (images / "data.txt").write_text("bound")
    there = hpc.root.parent / images.name
    job = hpc.of(
        "train",
        {
            "command": ["sh", "-c", "cat /data/data.txt > out; exit $(test -w /data; echo $?)1"],
            "image": f"{there}/busybox.sif",
            "options": {"container": {"binds": [f"{there}:/data:ro"]}},
        },
    )
    found = await ran(adapter, job)
    assert found.detail["exit_code"] == 11, found.message
    folder = hpc.run_folder(job.owner, found.external)
    assert (folder / "work/out").read_text() == "bound"


@pytest.mark.parametrize("vendor", ["nv", "rocm"])
async def test_the_graphics_cards_are_asked_for_by_their_vendor(
    site: Cluster, path: str, tmp_path: Path, vendor: str
) -> None:
    """There is none here: the program that runs containers takes the flag and runs all the same."""
    told = site.here(site.login.root / f"{tmp_path.name}.flags")
    folder = site.layout.folder / f"bin-{tmp_path.name}"
    folder.mkdir()
    script = folder / "apptainer"
    script.write_text(
        f'#!/bin/sh\necho "$@" > {site.login.root / told.name}\nexec {path}/apptainer "$@"\n'
    )
    script.chmod(0o755)
    hpc = Hpc(site, tmp_path, setup=[f"export PATH={folder}:$PATH"])
    job = hpc.of(
        "train",
        {
            "command": ["sh", "-c", "echo inside > out"],
            "image": "busybox.sif",
            "outputs": {"out": "out"},
            "options": {"container": {vendor: True}},
        },
        kept={"busybox.sif": SIF.read_bytes()},
    )
    async with hpc.adapter() as adapter:
        found = await ran(adapter, job)
    assert found.state is State.SUCCEEDED, found.message
    assert outputs_of(hpc, found) == {"out": b"inside\n"}
    assert told.read_text().split()[:4] == ["exec", "--no-home", "--cleanenv", f"--{vendor}"]


async def test_a_node_without_a_container_program_uses_up_no_attempt(
    site: Cluster, tmp_path: Path
) -> None:
    """Another node may have one."""
    hpc = Hpc(site, tmp_path, setup=["PATH=/usr/bin:/bin"], runtimes=["singularity"])
    job = hpc.of("train", {"command": ["true"], "image": "/absent.sif"})
    async with hpc.adapter() as adapter:
        found = await ran(adapter, job)
    assert (found.reason, found.attempt_counts) == (Reason.FAILED, False)
    assert "none of singularity is on the PATH" in found.message


def element(text: str, indices: str = "0-3", **more: JsonValue) -> dict[str, JsonValue]:
    """A Job with elements."""
    return {
        "command": ["sh", "-c", text],
        "array": {"indices": indices, "limit": 3},
        "outputs": {"out": "out"},
        **more,
    }


async def test_only_the_elements_that_failed_run_again(hpc: Hpc, adapter: SlurmAdapter) -> None:
    """The second attempt takes over what the first has done."""
    good = hpc.cluster.here(hpc.root.parent / f"{hpc.root.name}.good")
    mark = hpc.root.parent / good.name
    text = (
        f'echo "$WINDLASS_ARRAY_INDEX $WINDLASS_ATTEMPT" | tee out;'
        f' [ "$WINDLASS_ARRAY_INDEX" != 2 ] || [ -e {mark} ]'
    )
    job = hpc.of("fold", element(text))
    first = await ran(adapter, job)
    assert (first.state, first.reason) == (State.FAILED, Reason.FAILED)
    assert first.message.startswith("1 of 4 elements failed (2); element 2: exit code 1")
    good.touch()
    second = await ran(adapter, job, attempt=2)
    assert second.state is State.SUCCEEDED, second.message
    assert {name: data.decode() for name, data in outputs_of(hpc, second).items()} == {
        "out-0": "0 1\n",
        "out-1": "1 1\n",
        "out-2": "2 2\n",
        "out-3": "3 1\n",
    }
    log = await adapter.read_log(second.external, "stdout", 0)
    lines = log.data
    while not log.complete:
        log = await adapter.read_log(second.external, "stdout", log.next_offset)
        lines += log.data
        await asyncio.sleep(0.05)
    assert lines == b"0 1\n1 1\n2 2\n3 1\n"


async def test_jobs_of_one_shape_go_as_one_array_and_stay_jobs_of_their_own(
    hpc: Hpc, adapter: SlurmAdapter
) -> None:
    """One sbatch; each with its own end, output and removal."""
    options: JsonValue = {"coalesce": True}
    texts = {n: f"echo {n} > out" if n != 3 else "exit 5" for n in range(6)}
    texts[5] = "sleep 60"
    jobs = [
        hpc.shell(text, f"job-{n}", uid=f"{n:016}", options=options, outputs={"out": "out"})
        for n, text in texts.items()
    ]
    made = await asyncio.gather(*(start(adapter, job) for job in jobs))
    ids = {found.message.rpartition(" ")[2] for found in made}
    assert len(ids) == 6
    assert len({id_.partition("_")[0] for id_ in ids}) == 1
    found = await asyncio.gather(
        *(settled(adapter, j.owner, f.external) for j, f in zip(jobs[:5], made[:5], strict=True))
    )
    assert [f.state is State.SUCCEEDED for f in found] == [True, True, True, False, True]
    assert found[3].message.startswith("exit code 5")
    assert [outputs_of(hpc, f)["out"] for f in (found[0], found[4])] == [b"0\n", b"4\n"]
    async with hpc.adapter() as fresh:
        await gone(fresh, jobs[5].owner, made[5].external)
        again = await settled(fresh, jobs[0].owner, made[0].external)
        assert again.outputs == found[0].outputs
    await until(lambda: not [r for r in hpc.cluster.squeue() if r[-1] == "RUNNING"], "all ended")


async def test_an_identical_submission_in_pieces_is_one(hpc: Hpc, adapter: SlurmAdapter) -> None:
    """Sent twice, with other company the second time."""
    options: JsonValue = {"coalesce": True}
    jobs = [hpc.shell("true", f"j-{n}", uid=f"{n:016}", options=options) for n in range(4)]
    made = await asyncio.gather(*(start(adapter, job) for job in jobs))
    again = await asyncio.gather(*(start(adapter, job) for job in jobs[1:3]))
    assert [f.message for f in again] == [f.message for f in made[1:3]]
    found = await asyncio.gather(
        *(settled(adapter, j.owner, f.external) for j, f in zip(jobs, made, strict=True))
    )
    assert all(f.state is State.SUCCEEDED for f in found)
    assert len(hpc.claims()) == 4


async def test_an_address_is_pulled_once_for_all(site: Cluster, path: str, tmp_path: Path) -> None:
    """By whoever comes first; the others wait for it."""
    count = site.here(site.login.root / f"{tmp_path.name}.pulls")
    program = Path(path) / "apptainer"
    sif = site.layout.folder / "busybox.sif"
    sif.write_bytes(SIF.read_bytes())
    told = site.login.root / count.name
    folder = site.layout.folder / f"bin-{tmp_path.name}"
    folder.mkdir()
    script = folder / "apptainer"
    script.write_text(
        f'#!/bin/sh\n[ "$1" = pull ] || exec {program} "$@"\n'
        f'echo "$3" >> {told}; sleep 1; exec cp {sif} "$2"\n'
    )
    script.chmod(0o755)
    hpc = Hpc(site, tmp_path, setup=[f"export PATH={folder}:$PATH"])
    jobs = [
        hpc.of(f"j-{n}", {"command": ["true"], "image": "docker://busybox:1"}, uid=f"{n:016}")
        for n in range(8)
    ]
    async with hpc.adapter() as adapter:
        assert json.loads(json.dumps(create_of(adapter, jobs[0]).wanted.body))["image"] == {
            "path": None,
            "digest": None,
            "address": "docker://busybox:1",
        }
        found = await asyncio.gather(*(ran(adapter, job) for job in jobs))
    assert [f.state for f in found] == [State.SUCCEEDED] * 8, found
    assert count.read_text() == "docker://busybox:1\n"
    (image,) = {each.resolve() for each in site.here(hpc.root).glob("images/*")}
    assert image.stat().st_nlink == 1 + len(jobs), "each run's folder says that it is in use"
