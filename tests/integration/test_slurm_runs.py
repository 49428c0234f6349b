"""Runs on a real cluster, with accounting and without: what goes in, what comes out, the end."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rig.hpc import (
    Hpc,
    create_of,
    gone,
    look,
    observed,
    outputs_of,
    ran,
    settled,
    start,
    until,
)
from rig.slurm import Cluster, cluster
from rig.slurm_site import Site
from windlass_adapters.base import Found, State, TerminalError
from windlass_adapters.bundle import pack
from windlass_adapters.slurm import SlurmAdapter
from windlass_schemas import Reason


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(False, id="no-accounting"),
        pytest.param(True, id="accounting", marks=pytest.mark.long),
    ],
)
def site(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """One cluster for all tests of a kind."""
    with cluster(Site(accounting=request.param)) as found:
        yield found


@pytest.fixture
def hpc(site: Cluster, tmp_path: Path) -> Hpc:
    """A Target of the test's own."""
    return Hpc(site, tmp_path, grace="2s")


@pytest.fixture
async def adapter(hpc: Hpc) -> AsyncIterator[SlurmAdapter]:
    """Its adapter, opened."""
    async with hpc.adapter() as opened:
        yield opened


def node_back(site: Cluster, node: str) -> None:
    """Also when it has come back by itself."""
    site.admin("scontrol", "update", f"nodename={node}", "state=resume", check=False)


TELLS = """\
import json, os, sys
told = {"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "python": sys.version}
told["wine"] = open(os.environ["WINDLASS_INPUT_WINE"]).read()
told["near"] = open("data/near.txt").read()
with open(os.environ["WINDLASS_OUTPUT_TOLD"], "w") as file:
    json.dump(told, file)
print("a line")
print("another", file=sys.stderr)
"""


def digest(data: bytes) -> str:
    """Hex digits of its content."""
    return hashlib.sha256(data).hexdigest()


HARD = "a 'b' \"c\" $(id) `id` \\ \n ü € , ; * ~ #"


async def test_values_files_and_outputs_arrive_exactly(hpc: Hpc, adapter: SlurmAdapter) -> None:
    """Quotes, substitutions, newlines, UTF-8, commas: no shell reads any of it."""
    job = hpc.job(
        entrypoint="tell.py",
        kept={"tell.py": TELLS, "data/near.txt": "near", "wine.csv": "1,2"},
        files=["data"],
        inputs={"wine": {"file": "wine.csv"}},
        params={"x": HARD, "flag": True, "n": 3},
        env={"HARD": HARD, "EMPTY": ""},
        outputs={"told": "deep/down/told.json"},
    )
    found = await ran(adapter, job)
    assert found.state is State.SUCCEEDED, found.message
    told = json.loads(outputs_of(hpc, found)["told"])
    assert told["argv"] == ["--flag", "true", "--n", "3", "--x", HARD]
    environment = told["env"]
    assert (environment["HARD"], environment["EMPTY"]) == (HARD, "")
    assert (environment["WINDLASS_PARAM_X"], environment["WINDLASS_PARAM_FLAG"]) == (HARD, "true")
    assert environment["WINDLASS_JOB"] == "default/train"
    assert (told["wine"], told["near"]) == ("1,2", "near")
    assert told["cwd"] == str(
        hpc.root / "jobs" / Path(*hpc.place(job.owner, found.external)) / "work"
    )
    assert (await adapter.read_log(found.external, "stdout", 0)).data == b"a line\n"
    assert (await adapter.read_log(found.external, "stderr", 0)).data == b"another\n"


async def test_a_program_that_fails_is_told_with_its_last_words(
    hpc: Hpc, adapter: SlurmAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code and the end of stderr, without the secrets that the program printed."""
    monkeypatch.setenv("CANARY", "c4n4ry")
    job = hpc.shell("echo key $KEY >&2; exit 7", env={"KEY": "env:CANARY"})
    found = await ran(adapter, job)
    assert (found.state, found.reason, found.attempt_counts) == (State.FAILED, Reason.FAILED, True)
    assert found.message == "exit code 7; stderr ends:\nkey ***"
    assert found.detail["exit_code"] == 7
    assert "c4n4ry" not in str(await hpc_text(hpc))


def said(path: Path) -> str:
    """A file's text; empty while there is none."""
    return path.read_text() if path.exists() else ""


async def hpc_text(hpc: Hpc) -> str:
    """Everything that lies in the files beside a run, but for what the program wrote."""
    root = hpc.cluster.here(hpc.root)
    files = [p for p in root.glob("jobs/*/*/*") if p.is_file() and p.name not in ("hide",)]
    return "\n".join(p.read_text(errors="replace") for p in files if p.name != "environ.sh")


async def test_an_output_that_is_missing_or_leads_away_fails_the_run(
    hpc: Hpc, adapter: SlurmAdapter
) -> None:
    """A symlink out of the working directory is not followed."""
    missing = await ran(adapter, hpc.shell("touch other", "a", outputs={"m": "model"}))
    assert (missing.reason, missing.state) == (Reason.OUTPUT_MISSING, State.FAILED)
    assert "output m: was not written; the working directory holds other" in missing.message
    away = await ran(adapter, hpc.shell("ln -s /etc/passwd model", "b", outputs={"m": "model"}))
    assert away.reason is Reason.OUTPUT_MISSING
    assert "leads out of the working directory" in away.message


@pytest.mark.parametrize("size", [10, 9_000_000], ids=["small", "large"])
async def test_a_folder_is_one_artifact_as_on_a_local_target(
    hpc: Hpc, adapter: SlurmAdapter, size: int, tmp_path: Path
) -> None:
    """The same archive for the same files, whatever their order; nothing of it stays over there."""
    make = f"mkdir -p out/deep; head -c {size} /dev/zero > out/deep/b; echo a > out/a"
    job = hpc.shell(make, outputs={"all": "out"})
    found = await ran(adapter, job)
    assert found.state is State.SUCCEEDED, found.message
    files = {"a": b"a\n", "deep/b": bytes(size)}
    for name, content in files.items():
        (tmp_path / name.replace("/", "-")).write_bytes(content)
    archive = io.BytesIO()
    pack({name: tmp_path / name.replace("/", "-") for name in files}, archive)
    assert outputs_of(hpc, found)["all"] == archive.getvalue()
    assert found.outputs["all"].name == "out"
    other = await start(adapter, hpc.shell("true", "other", uid="a" * 16))
    await settled(adapter, hpc.shell("true", "other", uid="a" * 16).owner, other.external)
    assert not (hpc.run_folder(job.owner, found.external) / "packed").exists()


NO_FOLDERS = {
    "mkdir out": "is an empty folder",
    "mkdir out; ln -s /etc out/etc": "holds etc, which is no regular file",
    "mkdir out; mkfifo out/pipe": "holds pipe, which is no regular file",
    "mkdir out; echo 1 > out/a; chmod 0 out/a": "holds a, which cannot be read",
}


async def test_a_folder_that_cannot_be_kept_fails_the_run(hpc: Hpc, adapter: SlurmAdapter) -> None:
    """Links are not followed, and nothing hangs on a pipe."""
    jobs = [
        hpc.shell(make, f"job-{n}", uid=f"{n:016}", outputs={"all": "out"})
        for n, make in enumerate(NO_FOLDERS)
    ]
    found = await asyncio.gather(*(ran(adapter, job) for job in jobs))
    for each, why in zip(found, NO_FOLDERS.values(), strict=True):
        assert (each.reason, why in each.message) == (Reason.OUTPUT_MISSING, True), each


async def test_a_large_output_comes_as_a_file(hpc: Hpc, adapter: SlurmAdapter) -> None:
    """Beyond what one answer holds, and checked by its digest."""
    job = hpc.shell("head -c 20000000 /dev/urandom > big; sha256sum big", outputs={"big": "big"})
    found = await ran(adapter, job)
    assert found.state is State.SUCCEEDED, found.message
    printed = (await adapter.read_log(found.external, "stdout", 0)).data.decode()
    assert found.outputs["big"].digest == f"sha256:{printed.split()[0]}"
    assert len(outputs_of(hpc, found)["big"]) == 20_000_000


async def test_a_large_input_is_sent_once(hpc: Hpc, adapter: SlurmAdapter) -> None:
    """By content: the second Job finds it there."""
    data = bytes(range(256)) * 4000
    jobs = [
        hpc.job(
            name,
            command=["sh", "-c", 'sha256sum < "$WINDLASS_INPUT_DATA" > sum'],
            kept={"data.bin": data},
            inputs={"data": {"file": "data.bin"}},
            outputs={"sum": "sum"},
        )
        for name in ("a", "b")
    ]
    first = await ran(adapter, jobs[0])
    (blob,) = hpc.cluster.here(hpc.root).glob(f"cas/*/*/{digest(data)}")
    at = blob.stat().st_mtime_ns
    second = await ran(adapter, jobs[1])
    assert outputs_of(hpc, first)["sum"].decode().split()[0] == digest(data)
    assert first.outputs == second.outputs
    assert blob.stat().st_mtime_ns == at
    blob.unlink()  # as a site does that cleans its scratch
    third = await ran(adapter, jobs[1], attempt=2)
    assert third.outputs == first.outputs


async def test_what_nobody_can_run_is_refused_in_slurms_own_words(
    hpc: Hpc, adapter: SlurmAdapter
) -> None:
    """A partition that there is not."""
    job = hpc.shell("true", options={"partition": "nowhere"})
    with pytest.raises(TerminalError, match="invalid partition") as caught:
        await start(adapter, job)
    assert caught.value.reason is Reason.BACKEND_REFUSED
    assert await adapter.find(job.owner) == []
    mended = hpc.shell("true")
    assert create_of(adapter, mended).wanted.digest == create_of(adapter, job).wanted.digest
    assert (await ran(adapter, mended)).state is State.SUCCEEDED


async def test_a_hold_is_told_and_ends(hpc: Hpc, adapter: SlurmAdapter) -> None:
    """The run waits; it is not failed and not made anew."""
    blocker = hpc.shell("sleep 60", "blocker", options={"exclusive": True, "nodes": 2})
    blocking = await start(adapter, blocker)
    await observed(
        adapter, blocker.owner, blocking.external, lambda f: "runs on" in f.message, "it runs"
    )
    job = hpc.shell("true", uid="f" * 16)
    made = await start(adapter, job)
    number = made.message.rpartition(" ")[2]
    await asyncio.to_thread(hpc.cluster.hold, number)
    held = await observed(
        adapter, job.owner, made.external, lambda f: f.reason is Reason.HELD, "it is held"
    )
    assert f"job {number} is held" in held.message
    await gone(adapter, blocker.owner, blocking.external)
    await asyncio.to_thread(hpc.cluster.release, number)
    assert (await settled(adapter, job.owner, made.external)).state is State.SUCCEEDED


async def test_an_administrators_cancel_is_told_and_not_fought(
    hpc: Hpc, adapter: SlurmAdapter
) -> None:
    """Somebody has decided."""
    job = hpc.shell("sleep 60")
    made = await start(adapter, job)
    await observed(adapter, job.owner, made.external, lambda f: "runs on" in f.message, "it runs")
    await asyncio.to_thread(hpc.cluster.cancel, made.message.rpartition(" ")[2])
    found = await settled(adapter, job.owner, made.external)
    assert (found.state, found.reason) == (State.FAILED, Reason.CANCELLED)
    assert "somebody cancelled it" in found.message


async def test_a_node_that_fails_uses_up_no_attempt(hpc: Hpc, adapter: SlurmAdapter) -> None:
    """Without requeue it is the machine's failure; with it, Slurm runs the same attempt again."""
    job = hpc.shell("sleep 60")
    again = hpc.shell("echo begun; sleep $([ -e ../once ] && echo 0 || (touch ../once; echo 60))",
                      uid="e" * 16, options={"requeue": True})  # fmt: skip
    runs = [(each, await start(adapter, each)) for each in (job, again)]
    try:
        for each, made in runs:
            seen = await observed(
                adapter, each.owner, made.external, lambda f: "runs on" in f.message, "it runs"
            )
        for node in ("n1", "n2"):
            await asyncio.to_thread(hpc.cluster.node_fail, node)
        found = await settled(adapter, job.owner, runs[0][1].external)
        assert (found.reason, found.attempt_counts) == (Reason.NODE_FAILED, False)
        seen = await observed(
            adapter, again.owner, runs[1][1].external, lambda f: "waits" in f.message, "requeued"
        )
        assert seen.state is State.PROGRESSING
    finally:
        for node in ("n1", "n2"):
            await asyncio.to_thread(node_back, hpc.cluster, node)
    await gone(adapter, again.owner, runs[1][1].external)


async def test_a_program_that_must_stop_hears_of_it_first(hpc: Hpc, adapter: SlurmAdapter) -> None:
    """TERM to the batch step, a grace, then the end; nothing is left."""
    mark = hpc.root.parent / f"{hpc.root.name}.term"
    text = f"trap 'echo heard > {mark}; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    job = hpc.shell(text)
    made = await start(adapter, job)
    await observed(adapter, job.owner, made.external, lambda f: "runs on" in f.message, "it runs")
    folder = hpc.run_folder(job.owner, made.external)
    await until(lambda: said(folder / "log/stdout") == "up\n", "the trap is set")
    await gone(adapter, job.owner, made.external)
    assert hpc.cluster.here(mark).read_text() == "heard\n"
    assert not folder.exists()
    assert await adapter.find(job.owner) == []


async def test_a_restarted_daemon_knows_every_run(hpc: Hpc, adapter: SlurmAdapter) -> None:
    """Nothing but the cluster remembers them, and nothing is submitted again."""
    done = hpc.shell("echo 1 > o", "done", outputs={"o": "o"})
    going = hpc.shell("sleep 60", "going", uid="d" * 16)
    first = await ran(adapter, done)
    made = await start(adapter, going)
    async with hpc.adapter() as fresh:
        found = await settled(fresh, done.owner, first.external)
        assert (found.state, found.outputs) == (State.SUCCEEDED, first.outputs)
        assert (await look(fresh, going.owner, made.external)).__class__ is Found
        assert (await start(fresh, going)).message == made.message
        await gone(fresh, going.owner, made.external)
    assert len(hpc.claims()) == 1


async def test_the_log_is_followed_and_says_when_it_is_over(
    hpc: Hpc, adapter: SlurmAdapter
) -> None:
    """Piece by piece, also when the file was cut."""
    go = hpc.root.parent / f"{hpc.root.name}.go"
    job = hpc.shell(f"echo one; until [ -e {go} ]; do sleep 0.05; done; echo two")
    made = await start(adapter, job)
    data, offset = b"", 0
    while data != b"one\n":
        chunk = await adapter.read_log(made.external, "stdout", offset)
        data, offset = data + chunk.data, chunk.next_offset
        assert not chunk.complete
        await asyncio.sleep(0.1)
    log = hpc.run_folder(job.owner, made.external) / "log/stdout"
    log.write_bytes(b"three\n")  # cut, and longer again before anybody looks
    while b"was cut" not in data:
        chunk = await adapter.read_log(made.external, "stdout", offset)
        data, offset = data + chunk.data, chunk.next_offset
        await asyncio.sleep(0.1)
    hpc.cluster.here(go).touch()
    complete = False
    while not complete:
        chunk = await adapter.read_log(made.external, "stdout", offset)
        data, offset, complete = data + chunk.data, chunk.next_offset, chunk.complete
        await asyncio.sleep(0.1)
    assert (
        data == b"one\nwindlass: the log was cut; it goes on from its new beginning\nthree\ntwo\n"
    )
    assert json.dumps(offset) == "10"
