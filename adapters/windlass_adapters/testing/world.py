"""A whole kernel without a daemon: real store and reconciler, an adapter, our own clock.

Tests declare documents, let passes run until nothing is left to do, and look at the world.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Protocol, Self

from windlass.controller import STORE_RETRY
from windlass.metrics import Metrics, ReconcileMetrics
from windlass.reconciler import Reconciler
from windlass.registry import Registry
from windlass.store.base import (
    Applied,
    Document,
    Fault,
    Object,
    Snapshot,
    Store,
    StoreError,
)
from windlass.store.sqlite import DATABASE, SqliteStore
from windlass.targets import Targets
from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.base import Adapter
from windlass_adapters.testing.backend import MemoryBackend
from windlass_adapters.testing.cast import IN_MEMORY, Cast
from windlass_adapters.testing.life import Life, StageLoop
from windlass_adapters.testing.port import KitBackend
from windlass_adapters.testing.steppedstore import SteppedStore
from windlass_adapters.testing.stepping import Cut, InlineExecutor, Killed
from windlass_schemas import CloudEvent, Condition, Key

SOURCE = "folder:/specs"
MOST_PASSES = 2000
"""Passes until something that should come is given up: a kernel that turns in circles."""


class KitStore(Store, Protocol):
    """A store that can say how much was written."""

    @property
    @abstractmethod
    def writes(self) -> int:
        """How much of what is known has changed; the same number means that nothing has."""


@cache
def _metrics() -> ReconcileMetrics:
    """One set of numbers for all worlds: nobody reads them."""
    return Metrics().reconcile


@dataclass
class World:
    """The kernel, its backend and its time. A restart changes the kernel and nothing else."""

    folder: Path
    adapter: type[Adapter]
    behind: KitBackend
    """The backend, as far as the kit must know it."""
    inline: bool = False
    """Whether the store works in this thread, so that every step is the same in every run."""
    now: datetime = datetime(2030, 1, 1, tzinfo=UTC)
    revision: int = 0
    due: dict[Key, datetime] = field(default_factory=dict)
    passes: int = 0
    deaths: int = 0
    cut: Cut = field(default_factory=Cut)
    """Where passes are killed or disturbed."""
    checks: list[Callable[[World], Awaitable[None]]] = field(default_factory=list)
    """Asked after every pass."""
    cast: Cast = IN_MEMORY
    """The documents that stories are told with."""
    store: KitStore = field(init=False)
    targets: Targets = field(init=False)
    reconciler: Reconciler = field(init=False)
    deaf: frozenset[int] = frozenset()
    """Hints that get lost, by their number."""
    hints: int = 0
    seen_truthful: tuple[int, int, int] = (-1, -1, -1)
    """What had been written and changed when the status was last found truthful."""
    _executor: InlineExecutor = field(default_factory=InlineExecutor, init=False)
    _lives: list[Life] = field(default_factory=list, init=False)
    """All that a daemon has begun, where that can be told; the last one is the one that lives."""
    _former: list[Targets] = field(default_factory=list, init=False)
    """Of daemons that are dead."""

    @classmethod
    async def make(
        cls,
        folder: Path,
        backend: KitBackend | None = None,
        adapter: type[Adapter] | None = None,
        *,
        inline: bool = False,
        cast: Cast = IN_MEMORY,
    ) -> Self:
        """Open (or reopen) a world in a folder."""
        backend = backend or MemoryBackend()
        world = cls(folder, adapter or backend.adapter(), backend, inline, cast=cast)
        backend.clock = lambda: world.now
        for content in cast.contents:
            world.artifacts.put(content, "content")
        if isinstance(loop := asyncio.get_running_loop(), StageLoop):
            loop.tell(world._pass_by)
        await world._open()
        return world

    @property
    def backend(self) -> MemoryBackend:
        """The backend, where it is one in memory."""
        assert isinstance(self.behind, MemoryBackend), f"{type(self.behind)} is not in memory"
        return self.behind

    @property
    def artifacts(self) -> ArtifactStore:
        """What the daemon keeps."""
        return ArtifactStore(self.folder / "artifacts")

    async def _open(self) -> None:
        """Start a daemon's kernel on the state that there is. Everything is looked at once."""
        if isinstance(asyncio.get_running_loop(), StageLoop):
            self._lives.append(Life(lambda: self.cut))
        self.store = await self._open_store()
        self.targets = Targets(
            self.store,
            Registry({"local": self.adapter}),
            self.artifacts,
            self.folder / "targets",
            self.behind.params,
            _metrics().backend_calls,
        )
        self.reconciler = Reconciler(
            self.store, self.targets, _metrics(), lambda: self.now, lambda low, high: high
        )
        self.due = {object_.key: self.now for object_ in await self.store.list()}

    async def _open_store(self) -> KitStore:
        """The store under test: the embedded one."""
        file = self.folder / DATABASE
        if self.inline:
            return await SteppedStore.open(file, self._executor)
        return await SqliteStore.open(file)

    async def abandon(self) -> None:
        """The daemon is dead: nothing of its store goes on."""
        await self.store.close()

    async def close(self) -> None:
        """Stop, as a daemon does that is told to."""
        if isinstance(loop := asyncio.get_running_loop(), StageLoop):
            loop.tell_no_more(self._pass_by)
        for targets in (self.targets, *self._former):
            await targets.close()
        for life in self._lives:
            await life.bury()
        await self.store.close()
        self.cut.bury()

    async def kill(self) -> Self:
        """The daemon dies and another one starts on the same state and backend."""
        await self.abandon()
        self._former.append(self.targets)
        self.deaths += 1
        await self._open()
        return self

    async def declare(
        self, *documents: Document, faults: Iterable[Fault] = (), source: str = SOURCE
    ) -> Applied:
        """Take over a source's whole set as the next revision."""
        self.revision += 1
        snapshot = Snapshot(source, f"r{self.revision}", "ann", documents, tuple(faults))
        applied = await self.store.apply(snapshot, self.now)
        self.look(applied.changed)
        return applied

    def look(self, keys: Iterable[Key]) -> None:
        """Make keys due now: a hint, which may get lost."""
        for key in keys:
            if self.hints not in self.deaf:
                self.due[key] = self.now
            self.hints += 1

    async def reconcile(self, key: Key) -> None:
        """One pass, with what the controller does after it."""
        self.passes += 1
        try:
            await self._pass(key)
        except Killed:
            await self.kill()
        except (StoreError, TimeoutError, asyncio.CancelledError):
            if not self.cut.struck:
                raise
            self.due[key] = self.now + timedelta(seconds=STORE_RETRY)
        for check in self.checks:
            await check(self)

    async def _pass(self, key: Key) -> None:
        running = self.reconciler.reconcile(key)
        run = self._lives[-1].run if self._lives else self.cut.drive
        result = await run(running)
        self.due.pop(key, None)
        if result.changed:
            self.look(await self.store.dependents(key))
            self.look(result.wake)
        if result.requeue_after is not None:
            self.due[key] = self.now + timedelta(seconds=result.requeue_after)

    async def next_pass(self) -> None:
        """Go to the time when the next pass is due, and run it. Nothing is due: an hour passes."""
        if not self.due:
            await self.wait_until(self.now + timedelta(hours=1))
            return
        key = min(self.due, key=lambda k: (self.due[k], k))
        await self.wait_until(self.due[key])
        await self.reconcile(key)

    async def wait_until(self, at: datetime) -> None:
        """Let time pass, and with it whatever the adapter does by itself meanwhile."""
        if self._lives and at > self.now:
            await asyncio.sleep((at - self.now).total_seconds())
            if self._lives[-1].over.done():  # it died in something that it does by itself
                await self.kill()
        self.now = max(self.now, at)

    def _pass_by(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    async def until(
        self, holds: Callable[[], Awaitable[bool]], limit: timedelta = timedelta(hours=6)
    ) -> None:
        """Run one pass after the other until something holds. Bounded in time and in passes.

        It is asked again when the store or the backend has changed: it must speak of nothing else.
        """
        end, most = self.now + limit, self.passes + MOST_PASSES
        asked: object = None
        while (mark := self.mark()) == asked or not await holds():
            asked = mark
            if self.now > end or self.passes > most:
                found = [(str(o.key), o.status.condition("Ready")) for o in await self.store.list()]
                raise AssertionError(
                    f"it did not come to that within {limit} and {MOST_PASSES} passes: {found}"
                )
            await self.next_pass()

    async def until_ready(self, *texts: str) -> None:
        """Run passes until these are Ready at their newest generation."""

        async def ready() -> bool:
            found = [await self.store.get(Key.parse(text)) for text in texts]
            return all(o is not None and o.status.is_true("Ready", o.generation) for o in found)

        await self.until(ready)

    async def until_gone(self, text: str) -> None:
        """Run passes until the object is in the store no more."""

        async def gone() -> bool:
            return await self.store.get(Key.parse(text)) is None

        await self.until(gone)

    async def until_running(self, count: int = 1) -> None:
        """Run passes until that many runs are under way."""

        async def running() -> bool:
            return self.behind.running() == count

        await self.until(running)

    def mark(self) -> tuple[int, int, int]:
        """The same, as long as neither the store nor the backend has changed."""
        return (self.writes(), self.deaths, self.behind.changes)

    def touches(self) -> int:
        """How often the store or the backend has been spoken to. For inline worlds."""
        return self._executor.submitted + self.behind.calls.total()

    def writes(self) -> int:
        """How many rows the store has written since it was opened."""
        return self.store.writes

    async def settle(self, limit: int = 500) -> None:
        """Run passes until none is due at this moment."""
        for _ in range(limit):
            due = sorted(key for key, at in self.due.items() if at <= self.now)
            if not due:
                return
            await self.reconcile(due[0])
        raise AssertionError(f"not settled after {limit} passes: {self.due}")

    async def after(self, **duration: float) -> None:
        """Let time pass, with every pass that falls due on the way."""
        end = self.now + timedelta(**duration)
        await self.settle()
        while self.due and min(self.due.values()) <= end:
            await self.wait_until(min(self.due.values()))
            await self.settle()
        await self.wait_until(end)

    async def get(self, text: str) -> Object:
        """An object that must be there."""
        found = await self.store.get(Key.parse(text))
        assert found is not None, f"{text} is not in the store"
        return found

    async def ready(self, text: str) -> Condition:
        """An object's condition Ready."""
        return await self.condition(text, "Ready")

    async def condition(self, text: str, type_: str) -> Condition:
        """A condition that must be there."""
        found = (await self.get(text)).status.condition(type_)
        assert found is not None, f"{text} has no condition {type_}"
        return found

    async def events(self, text: str = "") -> list[CloudEvent]:
        """All events so far, of one object or of all."""
        found = [event for _, event in await self.store.events(0, 100_000)]
        subject = str(Key.parse(text)) if text else ""
        return [e for e in found if not subject or e.subject == subject]
