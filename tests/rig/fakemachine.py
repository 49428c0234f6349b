"""A machine without processes: what the local adapter starts, stops and asks, in virtual time.

The adapter's files are real. What its processes would write into them, this writes, at the time of
the world; the serving process's admin interface answers from here. A process outlives daemons.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

from pydantic import BaseModel, JsonValue

from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.base import (
    Adapter,
    AdapterContext,
    State,
    TerminalError,
    TransientError,
    Wanted,
)
from windlass_adapters.local import LocalAdapter, modelfolders, prepare, runner, runs, servers
from windlass_adapters.local.admin import Admin, View
from windlass_adapters.local.modelfolders import ModelRecord
from windlass_adapters.local.models import ModelOrder, Prepared
from windlass_adapters.local.processes import ProcessId
from windlass_adapters.local.records import write_record
from windlass_adapters.local.runfolder import ExitRecord, RunRecord
from windlass_adapters.local.servers import Listening
from windlass_adapters.local.starting import Starter
from windlass_adapters.local.storage import load, save
from windlass_adapters.program import short
from windlass_adapters.testing.port import KitBackend, Thing
from windlass_schemas import Reason

PREPARING, STARTING, LOADING, STOPPING = (timedelta(seconds=s) for s in (2, 1, 1, 1))
FIRST = 10_000_000
"""Pids above all that the real machine gives."""


@dataclass
class Process:
    """One that lives."""

    pid: int
    folder: Path
    ends: Callable[[], None] | None = None
    """What it does at ``at``; then it is gone, unless it stays."""
    at: datetime | None = None
    stays: bool = False

    @property
    def id(self) -> ProcessId:
        return ProcessId(self.pid, self.pid, "no machine")


@dataclass
class Served:
    """A Deployment in the serving process."""

    order: Mapping[str, JsonValue]
    since: datetime
    before: str | None = None
    """The digest in force until it is loaded."""


class FakeMachine(KitBackend):
    """Processes that are entries in a table."""

    changing = frozenset({"launch", "send", "kill", "put", "delete"})

    def __init__(self) -> None:
        self.clock = lambda: datetime(2030, 1, 1, tzinfo=UTC)
        self.calls: Counter[str] = Counter()
        self.living: dict[int, Process] = {}
        self.served: dict[str, Served] = {}
        self.context: AdapterContext | None = None
        self._given = FIRST
        self._effects: Counter[tuple[str, str]] = Counter()
        self._seen: dict[tuple[str, str], tuple[str, str]] = {}
        """Subject and digest of what there was at the last look, by role and name."""
        self._shape: object = None
        self._changes = 0

    # -- what the kit asks ----------------------------------------------------------------------

    def adapter(self) -> type[Adapter]:
        machine = self

        class OnFake(LocalAdapter):
            def __init__(self, context: AdapterContext, params: BaseModel) -> None:
                super().__init__(context, params)
                machine.context = context
                self._deployments._admin = FakeAdmin(machine)
                self._runs._starter = FakeStarter(machine)

        return OnFake

    @contextmanager
    def staged(self) -> Iterator[None]:
        with ExitStack() as stack:
            for module in (runs, modelfolders, servers):
                for name in ("is_alive", "send"):
                    stack.enter_context(patch.object(module, name, getattr(self, name)))
            for module in (modelfolders, servers):
                stack.enter_context(patch.object(module, "launch", self.launch))
            for name in ("marked", "kill"):
                stack.enter_context(patch.object(runs, name, getattr(self, name)))
            yield

    def things(self) -> Sequence[Thing]:
        self._look()
        found = [self._run(folder, record) for folder, record in self._runs()]
        found += [self._model(folder, record) for folder, record in self._models()]
        return found + [self._view(name, served) for name, served in self.served.items()]

    def counted(self) -> Mapping[tuple[str, str], int]:
        self._look()
        return self._effects

    @property
    def changes(self) -> int:
        self._look()
        return self._changes

    def is_live(self, uid: str, wanted: Wanted) -> bool:
        self._tick()
        if wanted.role == "server":
            view = self.view(wanted.name) if wanted.name in self.served else None
            return view is not None and (view.uid, view.digest) == (uid, wanted.digest)
        folder = self.state / "models" / wanted.name
        record = load(folder / "model.json", ModelRecord)
        result = load(folder / short(wanted.digest) / prepare.RESULT, Prepared)
        held = record is not None and (record.uid, record.digest) == (uid, wanted.digest)
        return held and result is not None and not result.reason

    def has_succeeded(self, uid: str, wanted: Wanted) -> bool:
        folder = self.state / "runs" / wanted.name
        record, ended = load(folder / runner.RUN, RunRecord), load(folder / runner.EXIT, ExitRecord)
        return record is not None and record.uid == uid and ended is not None and not ended.reason

    def running(self) -> int:
        self._tick()
        return sum(p.folder.parent == self.state / "runs" for p in self.living.values())

    def finish(self, *, ok: bool = True, message: str = "") -> None:
        (process,) = [p for p in self.living.values() if p.folder.parent == self.state / "runs"]
        record = load(process.folder / runner.RUN, RunRecord)
        assert record is not None
        outputs = {
            name: self.artifacts.put(f"{record.digest}/{name}".encode(), Path(path).name)
            for name, path in record.outputs.items()
        }
        ended = ExitRecord(
            reason="" if ok else Reason.FAILED,
            message=message,
            attempt_counts=True,
            outputs=outputs if ok else {},
        )
        save(process.folder / runner.EXIT, ended)
        del self.living[process.pid]

    # -- the machine ----------------------------------------------------------------------------

    @property
    def state(self) -> Path:
        return Path("/nowhere") if self.context is None else self.context.state.absolute()

    @property
    def artifacts(self) -> ArtifactStore:
        assert self.context is not None
        return self.context.artifacts

    def start(self, folder: Path, given: Mapping[str, object]) -> None:
        """A runner: it takes the run's claim, or does nothing."""
        self.calls["launch"] += 1
        if not (folder / runner.CLAIM).exists():
            process = self._begin(folder)
            write_record(folder / runner.CLAIM, process.id._asdict())

    def launch(self, module: str, arguments: Sequence[str], log: Path, stdin: bytes = b"") -> None:
        """A look at an artifact, or the serving process."""
        self.calls["launch"] += 1
        if module == modelfolders.PREPARE_MODULE:
            folder = Path(arguments[0])
            if not (folder / prepare.CLAIM).exists():
                looks = self._begin(folder, lambda: self._prepared(folder), PREPARING)
                write_record(folder / prepare.CLAIM, looks.id._asdict())
        else:
            assert module == servers.LAUNCHER_MODULE
            serving = self._begin(Path(arguments[0]).parent, None, STARTING)
            serving.ends, serving.stays = lambda: self._listens(serving, arguments), True
            write_record(Path(arguments[0]), serving.id._asdict())
        self._look()

    def is_alive(self, process: ProcessId) -> bool:
        self.calls["look"] += 1
        self._tick()
        return process.pid in self.living

    def send(self, process: ProcessId, number: signal.Signals) -> bool:
        self.calls["send"] += 1
        found = self.living.get(process.pid)
        if found is not None and (found.ends is None or found.stays):
            found.ends, found.stays = lambda: self._stopped(found), False
            found.at = self.clock() + STOPPING
        return found is not None

    def marked(self, folder: Path) -> list[int]:
        self._tick()
        return [p.pid for p in self.living.values() if p.folder == folder]

    def kill(self, pids: Sequence[int], number: signal.Signals = signal.SIGKILL) -> None:
        self.calls["kill"] += 1
        for pid in pids:
            self.living.pop(pid, None)

    def _begin(
        self, folder: Path, ends: Callable[[], None] | None = None, after: timedelta | None = None
    ) -> Process:
        self._given += 1
        at = None if after is None else self.clock() + after
        self.living[self._given] = Process(self._given, folder, ends, at)
        return self.living[self._given]

    def _tick(self) -> None:
        """Let happen what was to happen by now."""
        for process in list(self.living.values()):
            if process.at is not None and process.at <= self.clock():
                process.at = None
                if not process.stays:
                    del self.living[process.pid]
                if process.ends is not None:
                    process.ends()

    def _prepared(self, folder: Path) -> None:
        order = load(folder / prepare.ORDER, ModelOrder) if folder.exists() else None
        if order is not None:
            save(folder / prepare.RESULT, Prepared(artifact=order.body.artifact))

    def _listens(self, process: Process, arguments: Sequence[str]) -> None:
        given = dict(pairwise(arguments))
        identity = process.id._asdict()
        words = ("host", "port", "processes", "idle")
        place = {word: given[f"--{word}"] for word in words if f"--{word}" in given}
        save(process.folder / "serving.json", Listening.model_validate(identity | place))

    def _stopped(self, process: Process) -> None:
        if process.folder.parent == self.state / "runs" and process.folder.exists():
            ended = ExitRecord(reason=Reason.INTERRUPTED, message="stopped", attempt_counts=False)
            save(process.folder / runner.EXIT, ended)
        if process.folder == self.state / "serving":
            self.served.clear()

    # -- what there is --------------------------------------------------------------------------

    def _runs(self) -> list[tuple[Path, RunRecord]]:
        """Those that have begun: a folder alone is nothing yet."""
        folders = sorted(self.state.glob(f"runs/[!.]*/{runner.CLAIM}"))
        found = [(f.parent, load(f.parent / runner.RUN, RunRecord)) for f in folders]
        return [(folder, record) for folder, record in found if record is not None]

    def _models(self) -> list[tuple[Path, ModelRecord]]:
        folders = sorted(self.state.glob("models/[!.]*/model.json"))
        found = [(f.parent, load(f, ModelRecord)) for f in folders]
        return [(folder, record) for folder, record in found if record is not None]

    def _run(self, folder: Path, record: RunRecord) -> Thing:
        ended = load(folder / runner.EXIT, ExitRecord)
        over = State.FAILED if ended is not None and ended.reason else State.SUCCEEDED
        state = State.PROGRESSING if ended is None else over
        subject = folder.name.replace(short(record.uid), "")
        return Thing("run", folder.name, record.uid, subject, record.digest, state)

    def _model(self, folder: Path, record: ModelRecord) -> Thing:
        live = (folder / short(record.digest) / prepare.RESULT).exists()
        state = State.LIVE if live else State.PROGRESSING
        return Thing("artifact", folder.name, record.uid, record.key, record.digest, state)

    def _view(self, name: str, served: Served) -> Thing:
        view = self.view(name)
        state = State.LIVE if view.state == "Live" else State.PROGRESSING
        return Thing("server", name, view.uid, view.key, str(served.order["digest"]), state)

    def view(self, name: str) -> View:
        """One Deployment, in the serving process's words."""
        served = self.served[name]
        loaded = served.since + LOADING <= self.clock()
        digest = str(served.order["digest"])
        return View.model_validate(
            {
                "name": name,
                **{word: served.order[word] for word in ("install", "uid", "key")},
                "state": "Live" if loaded else "Progressing",
                "digest": digest if loaded else served.before,
                "pending_digest": None if loaded else digest,
            }
        )

    def _look(self) -> None:
        """Write down what has been made and removed since the last look."""
        self._tick()
        things = [self._run(*found) for found in self._runs()]
        things += [self._model(*found) for found in self._models()]
        things += [self._view(*found) for found in self.served.items()]
        there = {(t.role, t.name): (t.subject, t.digest) for t in things}
        for name, (subject, digest) in there.items():
            before = self._seen.get(name)
            if before is None:
                self._effects["create", subject] += 1
            elif before[1] != digest:
                self._effects["update", subject] += 1
        for name, (subject, _) in self._seen.items():
            if name not in there:
                self._effects["delete", subject] += 1
        self._seen = there
        shape = (things, [p.pid for p in self.living.values()])
        if shape != self._shape:
            self._shape, self._changes = shape, self._changes + 1


class FakeStarter(Starter):
    """Starts runners in the table."""

    def __init__(self, machine: FakeMachine) -> None:
        super().__init__(machine.state)
        self._machine = machine

    def start(
        self, run: Path, given: Mapping[str, object], asked: socket.socket | None = None
    ) -> None:
        self._machine.start(run, given)

    def at_hand(self) -> socket.socket | None:
        return None


class FakeAdmin(Admin):
    """The serving process's admin interface, without a socket."""

    def __init__(self, machine: FakeMachine) -> None:
        super().__init__(machine.state / "admin.sock")
        self._machine = machine

    async def _arrive(self, operation: str) -> None:
        await asyncio.sleep(0)
        self._machine.calls[operation] += 1
        self._machine._tick()
        serving = self._machine.state / "serving"
        if not any(p.folder == serving and p.stays for p in self._machine.living.values()):
            raise TransientError("the serving process does not answer")

    async def list(self) -> tuple[View, ...]:
        await self._arrive("list")
        views = tuple(self._machine.view(name) for name in self._machine.served)
        await asyncio.sleep(0)
        return views

    async def put(self, name: str, body: dict[str, JsonValue]) -> View:
        await self._arrive("put")
        held = self._machine.served.get(name)
        if held is not None and held.order["uid"] != body["uid"]:
            raise TerminalError(f"{name} belongs to another object")
        if held is None or held.order["digest"] != body["digest"]:
            before = None if held is None else self._machine.view(name).digest
            self._machine.served[name] = Served(body, self._machine.clock(), before)
        view = self._machine.view(name)
        self._machine._look()
        await asyncio.sleep(0)
        return view

    async def delete(self, name: str, uid: str) -> None:
        await self._arrive("delete")
        held = self._machine.served.get(name)
        if held is not None and held.order["uid"] != uid:
            raise TerminalError(f"{name} belongs to another object")
        self._machine.served.pop(name, None)
        self._machine._look()
        await asyncio.sleep(0)
