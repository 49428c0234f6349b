"""The whole kernel with thousands of objects: real store, loader, controller; a backend in memory.

For measuring. The backend answers after a latency of the measurer's choice, and finds by owner
without looking at everything that it holds, as a real one with an index of tags does.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel

from windlass.bus.local import LocalBus
from windlass.controller import Controller
from windlass.metrics import Metrics
from windlass.outcome import Result
from windlass.reconciler import Reconciler
from windlass.registry import Registry
from windlass.sources.base import Source, SourceUnavailableError
from windlass.store.base import Snapshot
from windlass.store.sqlite import SqliteStore
from windlass.targets import Targets
from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.base import (
    Absent,
    Capabilities,
    Change,
    Create,
    External,
    Found,
    Observation,
    Owner,
    State,
    Update,
    Wanted,
)
from windlass_adapters.testing import MemoryAdapter
from windlass_schemas import Key


@dataclass
class FleetBackend:
    """A backend that answers late, and tells when each object's first call came."""

    latency: float = 0.0
    """Seconds for each call."""
    held: dict[str, Found] = field(default_factory=dict)
    """What exists, by the owner's uid: one resource for each object."""
    calls: Counter[str] = field(default_factory=Counter)
    first_call: dict[Key, float] = field(default_factory=dict)
    """When an object was first spoken of (``time.perf_counter``); clear it before measuring."""

    async def arrive(self, operation: str, owners: Iterable[Owner]) -> None:
        """One call comes in, and takes its time."""
        now = time.perf_counter()
        self.calls[operation] += 1
        for owner in owners:
            self.first_call.setdefault(owner.key, now)
        if self.latency:
            await asyncio.sleep(self.latency)


class _LocalFields(BaseModel):
    """What a daemon gives the Target that is built in, whose place the fleet takes."""

    port: int = 0


class FleetAdapter(MemoryAdapter):
    """The memory adapter on a backend that can be large: everything in it is found by its owner."""

    params_model = _LocalFields
    fleet: ClassVar[FleetBackend]

    async def observe_many(
        self, externals: Sequence[tuple[Owner, External]]
    ) -> Mapping[External, Observation]:
        await self.fleet.arrive("observe_many", (owner for owner, _ in externals))
        held = self.fleet.held
        return {external: held.get(owner.uid, Absent()) for owner, external in externals}

    async def find(self, owner: Owner) -> Sequence[Found]:
        await self.fleet.arrive("find", [owner])
        found = self.fleet.held.get(owner.uid)
        return [] if found is None else [found]

    async def apply(self, owner: Owner, action: Create | Update) -> Found:
        await self.fleet.arrive("apply", [owner])
        wanted = action.wanted
        found = self.fleet.held[owner.uid] = Found(
            External(wanted.role, wanted.name, wanted.name), owner.uid, State.LIVE, wanted.digest
        )
        return found

    async def delete(self, owner: Owner, external: External) -> None:
        await self.fleet.arrive("delete", [owner])
        self.fleet.held.pop(owner.uid, None)

    def diff(self, wanted: Wanted, found: Found) -> tuple[Change, ...]:
        return ()


class FixedSource(Source):
    """One snapshot, given by hand; nothing follows it."""

    id = "folder:/specs"
    title = "a fixed set"

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    async def read(self) -> Snapshot:
        return self._snapshot

    async def snapshots(self) -> AsyncIterator[Snapshot | SourceUnavailableError]:
        yield self._snapshot
        await asyncio.Event().wait()

    def notes(self) -> tuple[str, ...]:
        return ()


class TimedReconciler(Reconciler):
    """Notes the passes: whose, and when each began."""

    passes: list[tuple[Key, float]]

    async def reconcile(self, key: Key, decided: Callable[[], None] = lambda: None) -> Result:
        self.passes.append((key, time.perf_counter()))
        return await super().reconcile(key, decided)


@dataclass
class Fleet:
    """A running kernel."""

    store: SqliteStore
    controller: Controller
    backend: FleetBackend
    metrics: Metrics
    passes: list[tuple[Key, float]]

    def ready(self) -> int:
        """How often an object has become Ready at a new generation."""
        return int(self.sample("windlass_time_to_ready_seconds_count"))

    def sample(self, name: str) -> float:
        """One of the kernel's own metrics."""
        for metric in self.metrics.reconcile.time_to_ready.collect():
            for each in metric.samples:
                if each.name == name:
                    return each.value
        return 0.0

    async def until(
        self, condition: Callable[[], bool], what: str, seconds: float = 600, pause: float = 0.005
    ) -> None:
        """Wait for a state, looking often. To look at a metric takes a part of a millisecond."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds:.0f} s: {what}")
            await asyncio.sleep(pause)

    async def idle(self) -> None:
        """Wait until nothing is due and nothing is worked on."""
        queue = self.controller.queue
        await self.until(lambda: len(queue) == 0 and queue.active == 0, "the queue is empty")


def fleet_adapter(backend: FleetBackend, lanes: int = 8) -> type[FleetAdapter]:
    """The adapter class for a backend. ``lanes`` is how many of its objects are worked on."""
    facts = Capabilities(resync_interval=timedelta(hours=1), max_concurrent=lanes)
    return type("BoundFleetAdapter", (FleetAdapter,), {"fleet": backend, "facts": facts})


@asynccontextmanager
async def fleet(
    folder: Path,
    source: Source,
    backend: FleetBackend | None = None,
    *,
    workers: int = 32,
    lanes: int = 8,
) -> AsyncIterator[Fleet]:
    """Run a kernel on a folder while the block runs."""
    backend = backend or FleetBackend()
    metrics = Metrics()
    store = await SqliteStore.open(folder / "windlass.db")
    targets = Targets(
        store,
        Registry({"local": fleet_adapter(backend, lanes)}),
        ArtifactStore(folder / "artifacts"),
        folder / "targets",
        {},
        metrics.reconcile.backend_calls,
    )
    reconciler = TimedReconciler(store, targets, metrics.reconcile)
    reconciler.passes = []
    controller = Controller(reconciler, targets, [source], LocalBus(), metrics)
    stop = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(controller.run(stop, workers, 30))
            yield Fleet(store, controller, backend, metrics, reconciler.passes)
            stop.set()
    finally:
        await targets.close()
        await store.close()
