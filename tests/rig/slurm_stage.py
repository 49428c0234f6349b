"""The Slurm adapter on a stage: the real adapter and the real program of the login node, in this
process, on a folder and a model of Slurm. What is cut is the daemon; nothing here waits for real.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import math
import os
import random
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import asyncssh
from pydantic import BaseModel, JsonValue

from rig.slurm_model import PENDING, SMALL, Job, Slurm, Traits
from windlass.store.base import Document
from windlass_adapters.base import Adapter, AdapterContext, AmbiguousError, State, Wanted
from windlass_adapters.slurm import (
    SlurmAdapter,
    fetching,
    memory,
    news,
    runs,
    staging,
    tails,
    watch,
)
from windlass_adapters.slurm.connection import Connection
from windlass_adapters.slurm.params import SlurmParams
from windlass_adapters.slurm.remote.__main__ import answer_to
from windlass_adapters.slurm.remote.records import order_of
from windlass_adapters.slurm.remote.site import Done, Site
from windlass_adapters.testing.cast import Cast
from windlass_adapters.testing.port import KitBackend, Thing
from windlass_schemas import Artifact, digest_of_resource, parse_resource

INPUT = b"0123456789abcdef" * (300 << 6)
"""300 KiB: goes by SFTP."""
INPUT_DIGEST = "sha256:" + hashlib.sha256(INPUT).hexdigest()
OUTPUT = b"a model\n"
STRANGER = "wl-aaaaaaaaaaaaaaaaaaaaaaaaaa"
"""A job of the same account, with a name like ours, of which nobody here knows."""
AGED = ("submitting", "submit.lock", "cancelled", "fetched")
"""Files whose age is asked for."""
_START = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass
class Wire:
    """What goes wrong on the way to the login node."""

    lossy: float = 0.0
    """How likely an answer gets lost after its effect."""
    most: int = 6
    """How many get lost; then it is well again, as a quiet world must be."""
    draw: random.Random = field(default_factory=lambda: random.Random(7))

    def loses(self) -> bool:
        lost = self.most > 0 and self.draw.random() < self.lossy
        self.most -= lost
        return lost


@dataclass
class SlurmStage(KitBackend):
    """A cluster that outlives daemons: a folder, a controller, and the books of both."""

    ground: Path
    """A folder of its own; what another stage has left there goes."""
    traits: Traits = SMALL
    wire: Wire = field(default_factory=Wire)
    unheard: bool = False
    """Whether somebody seems to listen to what the adapter tells, and every word gets lost."""

    timed: Sequence[ModuleType] = (runs, memory, watch, news, tails, staging, fetching)
    changing: Collection[str] = frozenset({"submit", "cancel", "bury"})

    def __post_init__(self) -> None:
        random.seed(1)  # the pauses between looks are drawn: the same in each run
        self.clock: Callable[[], datetime] = lambda: _START
        self.calls: Counter[str] = Counter()
        self._changes = 0
        shutil.rmtree(self.ground, ignore_errors=True)
        self.root = self.ground / "scratch" / "windlass"
        self.root.mkdir(parents=True)
        self.slurm = Slurm(lambda: self.clock().timestamp(), self.traits)
        self.stranger = self.slurm.stranger(STRANGER, "/")
        self._names: dict[str, Mapping[str, JsonValue]] = {}
        """What each folder of a run that was ever there said of it."""
        self._removed: Counter[str] = Counter()
        self._seen_at = _START
        self._state: object = None
        self.params = {
            "host": "login",
            "remoteRoot": str(self.root),
            "sshConfig": None,
            "soak": "1s",
            "grace": "5s",
        }

    # ---- what the kit asks

    @property
    def changes(self) -> int:
        return self._changes

    def adapter(self) -> type[Adapter]:
        stage = self

        class Bound(SlurmAdapter):
            def __init__(self, context: AdapterContext, params: BaseModel) -> None:
                super().__init__(context, params)
                if stage.unheard:
                    self._runs._news._listened = math.inf

            @staticmethod
            def connect(params: SlurmParams, counts: object) -> Connection:
                return StageConnection(params, stage)

        return Bound

    def things(self) -> Sequence[Thing]:
        """Programs that go on, and runs that wait to begin. Asked after each pass."""
        self.check()
        going = [self._element(job) for job in self.slurm.going()]
        ours = [job for job in self.slurm.jobs if job.name != STRANGER]
        waits = {self._element(job) for job in ours if job.state == PENDING}
        return [self._thing(*element) for element in [*going, *sorted(waits - set(going))]]

    def check(self) -> None:
        """What must never be, whatever a story without a fault comes to."""
        for (effect, folder), count in self.slurm.effects.items():
            assert folder.startswith("/"), f"{effect} of somebody else's job {folder}"
            elements = len(_elements(self._order(folder)))
            assert count <= elements, f"{count} times {effect} of {self._called(folder)}"

    def _element(self, job: Job) -> tuple[str, str]:
        """The folder of its run, and its index."""
        return self.slurm.run_of(job), job.index

    def _thing(self, folder: str, index: str) -> Thing:
        order = self._order(folder)
        name, digest = f"{order['name']} {index}".strip(), str(order["digest"])
        return Thing("run", name, str(order["uid"]), _subject(name), digest, State.PROGRESSING)

    def counted(self) -> Mapping[tuple[str, str], int]:
        """``submit``, ``start`` (once at most, ever), ``stop`` and ``delete`` of runs."""
        found: Counter[tuple[str, str]] = Counter()
        for (effect, folder), count in self.slurm.effects.items():
            found[effect, self._called(folder)] += count
        for folder, count in self._removed.items():
            found["delete", self._called(folder)] += count
        return found

    def is_live(self, uid: str, wanted: Wanted) -> bool:
        return False  # nothing lasts here

    def has_succeeded(self, uid: str, wanted: Wanted) -> bool:
        for folder, order in self._names.items():
            if order["uid"] == uid and order["name"] == wanted.name:
                return self.slurm.good.issuperset(folder + each for each in _elements(order))
        return False

    def running(self) -> int:
        """Runs all of whose elements go on."""
        going = Counter(self.slurm.run_of(job) for job in self.slurm.going())
        return sum(len(_elements(self._order(folder))) == n for folder, n in going.items())

    def finish(self, *, ok: bool = True, message: str = "") -> None:
        for job in (going := self.slurm.going()):
            self.slurm.finish(job, 0 if ok else 1, {"model": OUTPUT} if ok else {}, message)
        assert len({self.slurm.run_of(job) for job in going}) == 1, "which of them?"
        self.note()

    # ---- the login node

    def serve(self, data: bytes) -> bytes:
        """Run the login node's program on what one would write to its stdin."""
        self._age()
        stream = io.BytesIO(data[data.index(b'{"command"') :])
        request = json.loads(stream.readline())
        self.calls[request["command"]] += 1
        answer = json.dumps(answer_to(request, stream, self._site))
        self.note()
        return f"\n{request['nonce']}\n{answer}\n{request['nonce']}\n".encode()

    def _site(self, request: dict[str, JsonValue]) -> Site:
        slurm = self.slurm

        class Near(Site):
            def run(self, argv: list[str], timeout: float, **more: str) -> Done:
                return slurm.run(argv)

        return Near(request)

    def _age(self) -> None:
        """Files grow older by the time that has passed here since somebody looked."""
        passed = (self.clock() - self._seen_at).total_seconds()
        self._seen_at = self.clock()
        for path in self.root.glob("jobs/*/*/*"):
            if path.name in AGED:
                with suppress(FileNotFoundError):
                    at = path.lstat().st_mtime - passed
                    os.utime(path, (at, at), follow_symlinks=False)

    def note(self) -> None:
        """Write down which runs' folders have come and gone, and whether anything changed."""
        there = {str(path.parent): path for path in self.root.glob("jobs/*/[!.]*/order.json")}
        for folder in there:
            self._names.setdefault(folder, order_of(folder))
        gone = {f for f in self._names if f not in there and not self._removed[f]}
        self._removed.update(gone)
        state = (self.counted(), [(job.label, job.state) for job in self.slurm.jobs])
        if state != self._state:
            self._state, self._changes = state, self._changes + 1

    def _order(self, folder: str) -> Mapping[str, JsonValue]:
        return self._names.get(folder) or order_of(folder)

    def _called(self, folder: str) -> str:
        order = self._order(folder) if folder.startswith("/") else {}
        return _subject(str(order["name"])) if order else folder


class StageConnection(Connection):
    """Leads to the model, through the same doors."""

    def __init__(self, params: SlurmParams, stage: SlurmStage) -> None:
        self._params = params
        self._stage = stage

    @property
    def opened(self) -> int:
        return 1

    async def run(self, command: str, data: bytes, timeout: float) -> bytes:
        await asyncio.sleep(0)
        out = self._stage.serve(data)
        await asyncio.sleep(0)
        if self._stage.wire.loses():
            raise AmbiguousError("login: the answer was lost (by the test)")
        return out

    @asynccontextmanager
    async def files(self) -> AsyncIterator[asyncssh.SFTPClient]:
        await asyncio.sleep(0)
        self._stage.calls["sftp"] += 1
        yield StageFiles()  # type: ignore[misc] # as much of a client as is used
        await asyncio.sleep(0)

    async def close(self) -> None:
        await asyncio.sleep(0)


class StageFiles:
    """The login node's files."""

    async def stat(self, path: str) -> asyncssh.SFTPAttrs:
        await asyncio.sleep(0)
        try:
            return asyncssh.SFTPAttrs(size=Path(path).stat().st_size)
        except FileNotFoundError as error:
            raise asyncssh.SFTPNoSuchFile(str(error)) from None

    @asynccontextmanager
    async def open(self, path: str, mode: str) -> AsyncIterator[StageFile]:
        await asyncio.sleep(0)
        if mode == "wb":
            Path(path).write_bytes(b"")
        yield StageFile(Path(path))
        await asyncio.sleep(0)


@dataclass
class StageFile:
    """One of them, opened."""

    path: Path

    async def write(self, data: bytes, offset: int) -> None:
        await asyncio.sleep(0)
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)
        await asyncio.sleep(0)

    async def read(self, size: int, offset: int) -> bytes:
        await asyncio.sleep(0)
        return self.path.read_bytes()[offset : offset + size]


def cast_of(**more: JsonValue) -> Cast:
    """A Job with a large input and an output, and ``more`` in its spec."""

    def run(name: str, version: int) -> Document:
        spec: dict[str, object] = {
            "command": ["train"],
            "inputs": {"data": {"file": "data.bin"}},
            "outputs": {"model": "deep/model.onnx"},
            "params": {"version": version},
            "retries": 1,
            **more,
        }
        text = {"apiVersion": "windlass/v1", "kind": "Job", "metadata": {"name": name}}
        resource = parse_resource({**text, "spec": spec})
        files = {"data.bin": Artifact(digest=INPUT_DIGEST, size=len(INPUT), name="data.bin")}
        digest = digest_of_resource(resource, {path: a.digest for path, a in files.items()})
        return Document(resource, files, digest, f"{name}.yaml", 1)

    return Cast(run=run, contents=(INPUT,))


def _elements(order: Mapping[str, JsonValue]) -> list[str]:
    """What follows the names of the files of each."""
    array = order["array"]
    return [f".{index}" for index in array] if isinstance(array, list) else [""]


def _subject(name: str) -> str:
    """``default.train-<uid>-<digest>-a1`` without the uid."""
    head, _, rest = name.partition("-")
    return f"{head}-{rest[9:]}".rstrip("-")
