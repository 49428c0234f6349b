"""The tasks of a daemon: what feeds, works, relays, and how all of it stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from rig.telling import TellingAdapter
from rig.world import deployment, job, model
from windlass import hearing
from windlass.bus.local import LocalBus
from windlass.clock import utc_now
from windlass.controller import Controller
from windlass.metrics import Metrics
from windlass.reconciler import Reconciler
from windlass.registry import Registry
from windlass.sources.base import Source, SourceUnavailableError
from windlass.store.base import Claim, Delete, Document, Object, Outcome, RecordState, Snapshot
from windlass.store.sqlite import SqliteStore
from windlass.targets import Targets
from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.base import Change, Found, Owner, Wanted
from windlass_adapters.testing import MemoryAdapter, MemoryBackend
from windlass_schemas import Key

DEPLOYMENT = Key.parse("Deployment/wine")


class Committed(Source):
    """A source whose commits are made by the test."""

    def __init__(self) -> None:
        self.id = "test:/specs"
        self.title = "the test"
        self._items: asyncio.Queue[Snapshot | SourceUnavailableError | Exception] = asyncio.Queue()
        self._revision = 0

    def commit(self, *documents: Document) -> None:
        self._revision += 1
        self._items.put_nowait(Snapshot(self.id, f"r{self._revision}", "ann", documents))

    def fail(self, error: Exception) -> None:
        self._items.put_nowait(error)

    async def read(self) -> Snapshot:
        raise NotImplementedError

    async def snapshots(self) -> AsyncIterator[Snapshot | SourceUnavailableError]:
        while True:
            item = await self._items.get()
            if isinstance(item, Exception) and not isinstance(item, SourceUnavailableError):
                raise item
            yield item

    def notes(self) -> tuple[str, ...]:
        return ()


@dataclass
class Running:
    """A controller at work."""

    controller: Controller
    store: SqliteStore
    source: Committed
    backend: MemoryBackend
    bus: LocalBus
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, key: Key, true: Callable[[Object], bool]) -> Object:
        """Follow the events until an object is so; at most 10 seconds."""
        async with asyncio.timeout(10), self.bus.subscribe() as wakeups:
            async for _ in wakeups:
                found = await self.store.get(key)
                if found is not None and true(found):
                    return found
        raise AssertionError


@asynccontextmanager
async def running(
    folder: Path, adapter: type[MemoryAdapter] = MemoryAdapter, grace: float = 5.0
) -> AsyncIterator[Running]:
    backend = MemoryBackend()
    bound = adapter.for_backend(backend)
    store = await SqliteStore.open(folder / "windlass.db")
    metrics = Metrics()
    artifacts = ArtifactStore(folder / "artifacts")
    targets = Targets(
        store, Registry({"local": bound}), artifacts, folder, {}, metrics.reconcile.backend_calls
    )
    source, bus = Committed(), LocalBus()
    reconciler = Reconciler(store, targets, metrics.reconcile)
    controller = Controller(reconciler, targets, [source], bus, metrics)
    made = Running(controller, store, source, backend, bus)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(controller.run(made.stop, 4, grace))
            try:
                yield made
            finally:
                made.stop.set()
    finally:
        await targets.close()
        await store.close()


class SlowDisk:
    """Holds up the outcomes of passes until it is let go."""

    def __init__(self, store: SqliteStore) -> None:
        self.waiting: list[Key] = []
        self.free = asyncio.Event()
        self._write = store.commit
        store.commit = self.commit  # type: ignore[method-assign]

    async def commit(self, claim: Claim, outcome: Outcome) -> None:
        self.waiting.append(claim.object.key)
        await self.free.wait()
        await self._write(claim, outcome)


def is_ready(object_: Object) -> bool:
    return object_.status.is_true("Ready", object_.generation)


def was_seen(object_: Object) -> bool:
    """A pass has said something of it."""
    return object_.status.observed_generation == object_.generation


def has_started(object_: Object) -> bool:
    """The run is there, not just meant to be."""
    return any(record.state is RecordState.CREATED for record in object_.externals)


async def test_one_commit_brings_all_up_by_events_alone(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        daemon.source.commit(deployment(), model(), job())
        await daemon.until(Key.parse("Job/train"), has_started)
        daemon.backend.finish()
        await daemon.until(DEPLOYMENT, is_ready)


class Broken(TellingAdapter):
    """Breaks off the first time that it is listened to."""

    broken = True

    async def changed(self) -> Collection[Key]:
        if self.broken:
            self.broken = False
            raise OSError("no route to host")
        return await super().changed()


@pytest.mark.parametrize("kind", [TellingAdapter, Broken])
async def test_a_change_that_is_told_is_looked_at_though_nobody_would_ask_for_long(
    tmp_path: Path, kind: type[TellingAdapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter that breaks off is listened to again."""
    monkeypatch.setattr(hearing, "AGAIN", 0.01)
    async with running(tmp_path, kind) as daemon:
        daemon.source.commit(job())
        await daemon.until(Key.parse("Job/train"), has_started)
        await left_alone(daemon.backend)
        daemon.backend.finish()
        await daemon.until(Key.parse("Job/train"), is_ready)


async def left_alone(backend: MemoryBackend) -> None:
    """Wait until nobody asks any more, as a poll interval would have it."""
    async with asyncio.timeout(10):
        before = -1
        while backend.calls["observe_many"] != before:
            before = backend.calls["observe_many"]
            await asyncio.sleep(6 * TellingAdapter.facts.poll_interval.total_seconds())


class Silent(TellingAdapter):
    """Everything that it tells gets lost."""

    patience = timedelta(seconds=1.5)

    async def changed(self) -> Collection[Key]:
        self._listened = True
        await asyncio.Event().wait()
        return set()


async def test_a_hint_that_is_lost_costs_the_time_that_the_adapter_asked_for(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, Silent) as daemon:
        daemon.source.commit(job())
        await daemon.until(Key.parse("Job/train"), has_started)
        await left_alone(daemon.backend)
        daemon.backend.finish()
        await daemon.until(Key.parse("Job/train"), is_ready)


async def test_a_lost_source_is_recorded_and_removes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        daemon.source.commit(job())
        await daemon.until(Key.parse("Job/train"), lambda o: bool(o.externals))
        daemon.source.fail(SourceUnavailableError("the repository is gone"))
        async with asyncio.timeout(5):
            while not daemon.controller.troubles.sources:
                await asyncio.sleep(0)
        assert (await daemon.store.sources())[0].error == "the repository is gone"
        daemon.source.commit(job(), job("more"))
        await daemon.until(Key.parse("Job/more"), lambda o: bool(o.externals))
        assert daemon.controller.troubles.sources == {}
        assert (await daemon.store.sources())[0].error == ""


async def test_what_another_source_declared_stays_and_may_be_deleted_by_hand(
    tmp_path: Path,
) -> None:
    store = await SqliteStore.open(tmp_path / "windlass.db")
    await store.apply(Snapshot("folder:/old", "r1", "ann", (job(),)), utc_now())
    await store.close()
    async with running(tmp_path) as daemon:
        await daemon.until(Key.parse("Job/train"), lambda o: bool(o.externals))
        (old,) = await daemon.store.sources()
        assert "not followed by this daemon" in old.error
        request = Delete(Key.parse("Job/train"), "bob")
        daemon.controller.enqueue(await daemon.store.request(request, utc_now()))
        async with asyncio.timeout(10):
            while await daemon.store.get(Key.parse("Job/train")) is not None:
                await asyncio.sleep(0.01)
        assert daemon.backend.held == {}


async def test_a_source_that_breaks_ends_the_daemon(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        async with running(tmp_path) as daemon:
            daemon.source.fail(RuntimeError("a bug"))
            await asyncio.sleep(10)
    assert raised.group_contains(RuntimeError, match="a bug")


async def test_an_unexpected_error_stops_one_object_and_no_other(tmp_path: Path) -> None:
    class Broken(MemoryAdapter):
        def diff(self, wanted: Wanted, found: Found) -> tuple[Change, ...]:
            if wanted.name.startswith("default.bad-"):  # a uid may have "bad" in it
                raise KeyError("a bug in the adapter")
            return super().diff(wanted, found)

    async with running(tmp_path, Broken) as daemon:
        daemon.source.commit(job(), model("bad"), model("good"))
        await daemon.until(Key.parse("Job/train"), has_started)
        daemon.backend.finish()
        await daemon.until(Key.parse("Model/good"), is_ready)
        bad = await daemon.until(
            Key.parse("Model/bad"),
            lambda o: (
                (c := o.status.condition("Ready")) is not None and c.reason == "UnexpectedError"
            ),
        )
        assert bad.status.attempt >= 1


async def test_a_stop_lets_passes_finish_and_cancels_what_hangs(tmp_path: Path) -> None:
    entered = asyncio.Event()

    class Hanging(MemoryAdapter):
        async def find(self, owner: Owner) -> Sequence[Found]:
            entered.set()
            await asyncio.sleep(3600)
            return []

    async with asyncio.timeout(10), running(tmp_path, Hanging, grace=0.2) as daemon:
        daemon.source.commit(job())
        await entered.wait()
    store = await SqliteStore.open(tmp_path / "windlass.db")
    found = await store.get(Key.parse("Job/train"))
    assert found is not None
    assert found.externals[0].state == "intended", "the intent is there for the next start"
    await store.close()


async def test_the_outbox_is_published_in_order_and_emptied(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        daemon.source.commit(deployment(), model(), job())
        await daemon.until(Key.parse("Job/train"), has_started)
        daemon.backend.finish()
        await daemon.until(DEPLOYMENT, is_ready)
        async with asyncio.timeout(5):
            while await daemon.store.unpublished(1):
                await asyncio.sleep(0.01)


async def test_others_work_while_outcomes_are_written_and_not_without_end(tmp_path: Path) -> None:
    """Four workers: four that write make room for four more, and nobody for a fifth four."""
    async with running(tmp_path) as at:
        disk = SlowDisk(at.store)
        at.source.commit(*(model(f"m{i:02}") for i in range(20)))
        async with asyncio.timeout(10):
            while len(disk.waiting) < 8:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert len(set(disk.waiting)) == len(disk.waiting) == 8
        disk.free.set()
        async with asyncio.timeout(10):
            while len(set(disk.waiting)) < 20 or not all(map(was_seen, await at.store.list())):
                await asyncio.sleep(0.02)
