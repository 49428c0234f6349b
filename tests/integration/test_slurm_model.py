"""The model of Slurm says what a real cluster says: the same steps on both, and the same answers.

Ids and times differ, and nothing else does; what the model cannot do is not used by the schedules.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest
from pydantic import JsonValue

from rig.hpc import TARGET, UID, Hpc, create_of
from rig.slurm import Cluster, cluster
from rig.slurm_model import SHUT
from rig.slurm_site import Site
from rig.slurm_stage import SlurmStage
from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.base import AdapterContext, Desired, External, Owner
from windlass_adapters.slurm import SlurmAdapter
from windlass_adapters.slurm.naming import Place, place_of
from windlass_schemas import key_of, parse_resource

Facts = Mapping[str, object]
INSTALL = "install"
PATIENCE = 30.0
ENDED = ("COMPLETED", "FAILED", "CANCELLED")


class Side(Protocol):
    """A cluster on which the steps are played."""

    adapter: SlurmAdapter

    @abstractmethod
    async def pause(self) -> None:
        """Let some time pass."""

    @abstractmethod
    def end(self, name: str, code: int) -> None:
        """Let the program of a run end."""

    @abstractmethod
    def call(self, *argv: str) -> str:
        """One of Slurm's commands, as the account."""

    @property
    @abstractmethod
    def root(self) -> Path:
        """The folder on the cluster, by its name there."""


class Real(Side):
    """A real cluster; a program ends with the code that a file of its own tells it."""

    def __init__(self, hpc: Hpc) -> None:
        hpc.install = INSTALL
        self._hpc = hpc
        self.adapter = hpc.adapter()

    @property
    def root(self) -> Path:
        return self._hpc.root

    async def pause(self) -> None:
        await asyncio.sleep(0.1)

    def end(self, name: str, code: int) -> None:
        told = self._hpc.cluster.here(self.root.parent / f"{self.root.name}-{name}")
        told.with_suffix(".part").write_text(str(code))
        told.with_suffix(".part").rename(told)

    def call(self, *argv: str) -> str:
        return self._hpc.cluster.run(*argv)


class Model(Side):
    """The model of one."""

    def __init__(self, folder: Path) -> None:
        self._stage = SlurmStage(folder / "stage")
        self._now = self._stage.clock()
        self._stage.clock = lambda: self._now
        self._stage.slurm.jobs.clear()  # no stranger
        kind = self._stage.adapter()
        context = AdapterContext(INSTALL, TARGET, folder / "state", ArtifactStore(folder / "a"))
        adapter = kind(context, kind.params_model.model_validate(self._stage.params))
        assert isinstance(adapter, SlurmAdapter)
        self.adapter = adapter

    @property
    def root(self) -> Path:
        return self._stage.root

    async def pause(self) -> None:
        self._now += timedelta(seconds=0.25)

    def end(self, name: str, code: int) -> None:
        for job in self._stage.slurm.going():
            self._stage.slurm.finish(job, code, {})

    def call(self, *argv: str) -> str:
        return self._stage.slurm.run(argv).out.decode()


@contextlib.asynccontextmanager
async def _opened(side: Side) -> AsyncIterator[Side]:
    async with side.adapter:
        yield side


class Play:
    """The steps, and what is to be seen after each."""

    def __init__(self, side: Side, expected: Mapping[str, Facts]) -> None:
        """``expected`` is what is to be seen after each step, where that is known already."""
        self._side = side
        self._expected = expected
        self._places: dict[str, Place] = {}
        self._names: dict[str, tuple[Owner, External]] = {}
        self._ids: dict[str, str] = {}
        self.seen: dict[str, Facts] = {}

    def _job(self, name: str, **spec: JsonValue) -> Desired:
        told = self._side.root.parent / f"{self._side.root.name}-{name}"
        program = f"until [ -e {told} ]; do sleep 0.05; done; exit $(cat {told})"
        text: JsonValue = {
            "apiVersion": "windlass/v1",
            "kind": "Job",
            "metadata": {"name": name},
            "spec": {"command": ["sh", "-c", program], **spec},
        }
        resource = parse_resource(text)
        return Desired(Owner(INSTALL, UID, key_of(resource)), resource)

    async def submit(self, name: str, **spec: JsonValue) -> None:
        """Submit a run."""
        job = self._job(name, **spec)
        found = await self._side.adapter.apply(job.owner, create_of(self._side.adapter, job))
        self._names[name] = (job.owner, found.external)
        self._ids[name] = found.message.split()[-1]
        self._places[name] = place_of(TARGET, job.owner, found.external.name)

    async def until(
        self, step: str, name: str, *states: str, count: int = 1, one: str = ""
    ) -> None:
        """Look until the queue shows only such states for a run; keep what is seen then.

        A queue is ahead of the records by as long as a job takes to write one: what is expected
        may come a little later than the state.
        """
        end = time.monotonic() + PATIENCE
        while True:
            facts, shown = await self._look(name)
            said = [reason for state, reason in shown if state == "PENDING"]
            there = {state for state, _ in shown}
            enough = len(shown) >= count and (not one or one in there)
            settled = enough and there <= set(states) and "None" not in said
            wanted = self._expected.get(step, facts)
            if settled and facts == wanted:
                self.seen[step] = facts
                return
            assert time.monotonic() < end, f"{step}: {facts if settled else shown} is not {wanted}"
            await self._side.pause()

    async def stop(self, name: str) -> None:
        """Its owner removes it: one word to it."""
        await self._side.adapter.delete(*self._names[name])

    def again(self, name: str) -> None:
        """What an unclear submission may do: a second job for the same run."""
        place = self._places[name]
        folder = self._side.root / "jobs" / place.owner / place.token
        script = str(self._side.root / "bin" / self._side.adapter.login.script.name)
        flags = [f"--chdir={folder}", f"--output={folder}/log/slurm", "--no-requeue"]
        flags += [f"--job-name={place.job_name}", "--open-mode=append"]
        self._side.call("sbatch", "--parsable", *flags, script, str(folder))

    def cancel(self, name: str) -> None:
        """A person does that."""
        self._side.call("scancel", self._ids[name])

    async def _look(self, name: str) -> tuple[Facts, list[tuple[str, str]]]:
        place = self._places[name]
        request: dict[str, JsonValue] = {
            "runs": "/".join(place),
            "fetched": [],
            "all": False,
            "accounting": (await self._side.adapter.login.greeting()).accounting,
            "sweep": None,
        }
        answer = await self._side.adapter.login.call("look", request)
        lines = [str(line).split("|", 6) for line in _list(answer["rows"])]
        rows = [row for row in lines if row[-1] == place.job_name]
        ids = sorted({row[1] for row in rows}, key=int)
        record = answer["records"]
        assert isinstance(record, dict)
        facts = {
            "rows": sorted(str([*map(partial(_plain, ids=ids), row[1:5]), bool(row[5])])
                           for row in rows),
            "record": _plain(_known(record.get(place.token)), ids),
        }  # fmt: skip
        return facts, [(row[3], row[4]) for row in rows]


def _list(value: JsonValue) -> Sequence[JsonValue]:
    assert isinstance(value, list), value
    return value


def _known(record: JsonValue) -> JsonValue:
    """What does not depend on the time; the ids of elements are the controller's own affair."""
    if not isinstance(record, dict):
        return record
    ends = record.get("ends")
    for end in ends.values() if isinstance(ends, dict) else ():
        if isinstance(end, list) and end[3:] == ["term"]:
            end[0] = "told to stop"  # what a program then ends with is its own affair
    kept = ("missing", "jobid", "cancelled", "claims", "ends", "notes", "relaunched")
    return {name: record[name] for name in kept if name in record}


def _plain(value: JsonValue, ids: Sequence[str]) -> object:
    """With the jobs of a run as #1, #2 and so on."""
    if isinstance(value, dict):
        return {name: _plain(each, ids) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each, ids) for each in value]
    if isinstance(value, str):
        value = re.sub(r"^wl-\w+$", "NAME", value)
        value = re.sub(r" wl-\w+ ", " NAME ", value)
        return re.sub(r"^\d+", lambda m: f"#{ids.index(m[0]) + 1}" if m[0] in ids else m[0], value)
    return value


SHUT_OPTIONS: JsonValue = {"partition": SHUT}
"""The cluster has such a partition."""


async def _steps(side: Side, expected: Mapping[str, Facts]) -> Mapping[str, Facts]:
    play = Play(side, expected)
    await play.submit("good")
    await play.until("it runs", "good", "RUNNING")
    side.end("good", 0)
    await play.until("it has ended well", "good", *ENDED)

    await play.submit("bad")
    await play.until("another runs", "bad", "RUNNING")
    side.end("bad", 77)  # no job has such an id
    await play.until("it has failed", "bad", *ENDED)

    await play.submit("twice")
    await play.until("a third runs", "twice", "RUNNING")
    play.again("twice")
    await play.until(
        "a second job of it has run nothing", "twice", "RUNNING", "FAILED", one="FAILED"
    )
    side.end("twice", 0)
    await play.until("the first one has ended well", "twice", *ENDED)

    await play.submit("cancelled")
    await play.until("a fourth runs", "cancelled", "RUNNING")
    play.cancel("cancelled")
    await play.until("a person has cancelled it", "cancelled", *ENDED)

    await play.submit("waits", options=SHUT_OPTIONS)
    await play.until("it waits", "waits", "PENDING")
    play.cancel("waits")
    await play.until("a person has cancelled what waited", "waits", *ENDED)

    await play.submit("stopped")
    await play.until("a fifth runs", "stopped", "RUNNING")
    await play.stop("stopped")
    await play.until("it was told to stop, and did", "stopped", *ENDED)
    await play.stop("stopped")
    await play.until("its folder is gone", "stopped", *ENDED)

    await play.submit("never", options=SHUT_OPTIONS)
    await play.stop("never")
    await play.until("it was taken out of the queue", "never", *ENDED)

    await play.submit("many", array={"indices": "0-2"}, options=SHUT_OPTIONS)
    await play.until("elements wait in one line", "many", "PENDING")
    await play.stop("many")
    await play.until("all of them are taken out", "many", *ENDED)
    await play.submit("bounded", array={"indices": "0-2", "limit": 1})
    await play.until("one runs and two wait", "bounded", "RUNNING", "PENDING", count=2)
    await play.stop("bounded")
    await play.until("the one has heard of it, and the two are gone", "bounded", *ENDED)

    await play.submit("some", array={"indices": "0-1"})
    await play.until("each element has a line", "some", "RUNNING")
    side.end("some", 0)
    await play.until("all elements have ended", "some", *ENDED)
    return play.seen


@pytest.fixture(scope="module")
def site() -> Iterator[Cluster]:
    """One cluster for the steps."""
    with cluster(Site()) as found:
        yield found


async def test_the_same_steps_show_the_same_on_the_model_and_on_a_real_cluster(
    site: Cluster, tmp_path: Path
) -> None:
    """Lines of the queue, claims, records, notes: everything that a verdict is made of."""
    async with _opened(Model(tmp_path / "model")) as model:
        expected = await _steps(model, {})
    async with _opened(Real(Hpc(site, tmp_path / "real", grace="5s"))) as real:
        assert await _steps(real, expected) == expected
