"""The tasks of a daemon: sources feed the queue, workers run passes, the relay empties the outbox.

Every task has a parent here. A source that breaks ends the daemon; a pass that breaks does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

import structlog

from windlass.bus.base import Bus
from windlass.metrics import Metrics
from windlass.priority import Priority
from windlass.reconciler import Reconciler
from windlass.sources.base import Source, SourceUnavailableError
from windlass.store.base import Applied, LeaseLostError, Object, Snapshot, StoreError
from windlass.store.inbox import MESSAGE_SOURCES, Inbox, Receipt, SpecMessage
from windlass.targets import Targets
from windlass.workqueue import QueueClosed, WorkQueue
from windlass_schemas import Key, Resource, Target, key_of

STORE_RETRY = 5.0
"""Seconds until a write is tried again that the store did not take."""
RELAY_BATCH = 500
"""Events that are handed to the bus at once."""
BUS_RETRY = 1.0
"""Seconds until events are offered again to a bus that was away."""
RELAY_INTERVAL = 5.0
"""Seconds after which the outbox is read although nothing has said that it has grown."""
SOURCES_FIRST = 5.0
"""Seconds at a start for which the look at everything waits for the sources' first word."""
NOTES_INTERVAL = 2.0
"""Seconds between two looks at what sources have to tell people."""
DEFAULT_LANE_BOUND = 8
"""How many objects of a target that is not open yet may be worked on at once."""

_log = structlog.get_logger("windlass.controller")

T = TypeVar("T")
Feed = Callable[[], Coroutine[None, None, None]]


class Lanes:
    """Which target each key is on, so that one that hangs holds up only its own."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._lanes: dict[Key, str] = {}

    def put(self, resource: Resource) -> None:
        """Take note of where a resource is to run."""
        metadata = resource.metadata
        target = metadata.name if isinstance(resource, Target) else resource.spec.target
        self._lanes[key_of(resource)] = f"{metadata.namespace}/{target}"

    def __call__(self, key: Key) -> tuple[str, int]:
        lane = self._lanes.get(key, "")
        capabilities = self._targets.capabilities(lane)
        return lane, capabilities.max_concurrent if capabilities else DEFAULT_LANE_BOUND


class Controller:
    """Runs until told to stop, then stops in order: sources, queue, a bounded grace, relay."""

    def __init__(
        self,
        reconciler: Reconciler,
        targets: Targets,
        sources: Sequence[Source],
        bus: Bus,
        metrics: Metrics,
    ) -> None:
        self._store = reconciler.store
        self._reconciler = reconciler
        self._sources = sources
        self._bus = bus
        self._clock = reconciler.clock
        self._metrics = metrics
        self._lanes = Lanes(targets)
        self.queue = WorkQueue(self._lanes, metrics.workqueue)
        self._outbox_grew = asyncio.Event()
        self._snapshots: dict[str, Snapshot] = {}
        """The newest of each source."""
        self._taking = asyncio.Lock()
        """Held until what a revision changes is in the store and in the queue."""
        self._heard: set[str] = set()
        self._all_heard = asyncio.Event()
        if not sources:
            self._all_heard.set()
        self._inbox: Inbox | None = None
        self._feeds: list[Feed] = []
        self.source_errors: dict[str, str] = {}
        """By source id: why it cannot be read at the moment."""
        self.store_error = ""
        """Why the store did not take the last write; empty when it did."""

    def listen(self, inbox: Inbox, feed: Feed) -> None:
        """Take messages too, which ``feed`` brings to ``hear`` until it is cancelled."""
        self._inbox = inbox
        self._feeds.append(feed)

    async def run(self, stop: asyncio.Event, workers: int, grace: float) -> None:
        """Run ``workers`` workers until ``stop`` is set; passes under way get ``grace`` seconds."""
        self._metrics.reconcile.max_concurrent.set(workers)
        self._metrics.reconcile.active_workers.set_function(lambda: self.queue.active)
        await self._part_with_others()
        async with asyncio.TaskGroup() as group:
            feeding = [group.create_task(self._follow(source)) for source in self._sources]
            feeding += [group.create_task(feed()) for feed in self._feeds]
            feeding.append(group.create_task(self._tell_notes()))
            feeding.append(group.create_task(self._look_at_all()))
            working = [group.create_task(self._work()) for _ in range(workers)]
            relay = group.create_task(self._relay())
            await stop.wait()
            await _cancel(feeding)
            self.queue.close()
            await asyncio.wait(working, timeout=grace)
            await _cancel(working)
            await _cancel([relay])

    def pending(self, key: Key) -> bool:
        """Whether the key is due or worked on, or may be so once the newest revision is in."""
        return self._taking.locked() or self.queue.holds(key)

    def enqueue(self, keys: Iterable[Key]) -> None:
        """Look at these now: somebody asked."""
        self.queue.add_all(keys, Priority.EDIT)

    # -- hops 1 to 3 ------------------------------------------------------------------------------

    async def _part_with_others(self) -> None:
        """Objects of sources that nobody follows any more stay; people may delete them by hand."""
        followed = {source.id for source in self._sources}
        for state in await self._store.sources():
            if self._feeds and state.id.startswith(MESSAGE_SOURCES):
                await self._store.fail_source(state.id, "", self._clock())
            elif state.id not in followed:
                error = "not followed by this daemon; its objects stay until windlass delete"
                await self._store.fail_source(state.id, error, self._clock())

    async def _look_at_all(self) -> None:
        """Everything that is declared is looked at once at a start.

        What is newly declared goes first: the sources get a moment to say what that is.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(SOURCES_FIRST):
                await self._all_heard.wait()
        for object_ in await self._everything():
            self._lanes.put(object_.resource)
            self.queue.add(object_.key, Priority.RESYNC)

    async def _everything(self) -> Sequence[Object]:
        """All objects, however long the store cannot be read."""
        while True:
            try:
                return await self._store.list()
            except StoreError as error:
                self.store_error = str(error)
                _log.error("objects not read; trying again", error=str(error))
                await asyncio.sleep(STORE_RETRY)

    async def _follow(self, source: Source) -> None:
        async for item in source.snapshots():
            if isinstance(item, SourceUnavailableError):
                await self._lose(source, str(item))
            else:
                await self._take(item)
            self._heard.add(source.id)
            if len(self._heard) == len(self._sources):
                self._all_heard.set()

    async def _lose(self, source: Source, error: str) -> None:
        _log.error("source cannot be read; nothing is removed", source=source.id, error=error)
        self.source_errors[source.id] = error
        try:
            await self._store.fail_source(source.id, error, self._clock())
        except StoreError as store_error:
            _log.error("source state not written", error=str(store_error))

    async def _take(self, snapshot: Snapshot) -> None:
        """Write a snapshot, however long the store refuses it; a newer one comes after it."""
        for document in snapshot.documents:
            self._lanes.put(document.resource)
        async with self._taking:
            self._snapshots[snapshot.source] = snapshot
            applied = await self._apply(snapshot)
            self.source_errors.pop(snapshot.source, None)
            self.queue.add_all(await self._with_dependents(applied.changed), Priority.EDIT)
        _announce(snapshot, applied)

    async def _take_again(self, source: str, key: Key) -> None:
        """Another source has let a key go that this one declares too."""
        async with self._taking:
            if self._inbox is not None and source.startswith(MESSAGE_SOURCES):
                changed: Sequence[Key] = await self._inbox.retake(key, source, self._clock())
            elif snapshot := self._snapshots.get(source):
                changed = (await self._apply(snapshot)).changed
            else:  # it is not followed any more, or comes with its first set
                return
            self.queue.add_all(await self._with_dependents(changed), Priority.EDIT)

    async def transferred(self, key: Key, to: str) -> None:
        """A key has another owner now: what that one declares comes into force."""
        await self._take_again(to, key)

    async def hear(self, messages: Sequence[SpecMessage]) -> Sequence[Receipt]:
        """Write what messages declare, however long the store refuses it; durable on return."""
        inbox = self._inbox
        assert inbox is not None, "listen was called"
        for message in messages:
            if message.document is not None:
                self._lanes.put(message.document.resource)
        async with self._taking:
            receipts = await self._insist(lambda: inbox.receive(messages, self._clock()))
            changed = [r.key for r in receipts if r.is_due and r.key is not None]
            self.queue.add_all(await self._with_dependents(changed), Priority.EDIT)
        if any(receipt.verdict in ("refused", "conflict") for receipt in receipts):
            self._tell_news()
        return receipts

    async def _apply(self, snapshot: Snapshot) -> Applied:
        return await self._insist(lambda: self._store.apply(snapshot, self._clock()))

    async def _insist(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write what is declared. Raises LeaseLostError, and waits out everything else."""
        while True:
            try:
                result = await write()
            except LeaseLostError:
                raise
            except StoreError as error:
                self.store_error = str(error)
                _log.error("what is declared is not written; trying again", error=str(error))
                await asyncio.sleep(STORE_RETRY)
            else:
                self.store_error = ""
                return result

    async def _with_dependents(self, keys: Iterable[Key]) -> list[Key]:
        """These, and all that stand on them, nearest first."""
        found = dict.fromkeys(keys)
        waiting = list(found)
        for key in waiting:
            for dependent in await self._store.dependents(key):
                if dependent not in found:
                    found[dependent] = None
                    waiting.append(dependent)
        return list(found)

    async def _tell_notes(self) -> None:
        told: tuple[str, ...] = ()
        while True:
            notes = tuple(note for source in self._sources for note in source.notes())
            for note in notes:
                if note not in told:
                    _log.warning(note)
            told = notes
            await asyncio.sleep(NOTES_INTERVAL)

    def _tell_news(self) -> None:
        """There are new events."""
        self._outbox_grew.set()
        self._bus.wake()

    # -- hops 4 to 8 ------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            try:
                key = await self.queue.take()
            except QueueClosed:
                return
            try:
                await self._pass(key)
            finally:
                self.queue.done(key)

    async def _pass(self, key: Key) -> None:
        try:
            result = await self._reconciler.reconcile(key)
        except LeaseLostError as error:
            _log.warning("pass overtaken; looking again", key=str(key), error=str(error))
            self.queue.add_after(key, 1.0, Priority.FOLLOW_UP)
            return
        except StoreError as error:
            _log.error("outcome not written; looking again", key=str(key), error=str(error))
            self.store_error = str(error)
            self.queue.add_after(key, STORE_RETRY, Priority.FOLLOW_UP)
            return
        self.store_error = "" if result.changed else self.store_error
        if result.changed:
            self._tell_news()
            self.queue.add_all(await self._store.dependents(key), Priority.FOLLOW_UP)
            self.queue.add_all(result.wake, Priority.FOLLOW_UP)
        if result.freed:
            await self._take_again(result.freed, key)
        if result.requeue_after is None:
            return
        if result.requeue_after == 0:
            self.queue.add(key, Priority.FOLLOW_UP)
        else:
            priority = Priority.RESYNC if result.label == "success" else Priority.FOLLOW_UP
            self.queue.add_after(key, result.requeue_after, priority)

    async def _relay(self) -> None:
        """Publish what the outbox holds, in order, and only then mark it. At least once."""
        while True:
            self._outbox_grew.clear()
            try:
                await self._publish_all()
            except OSError as error:
                _log.warning("bus is away; events wait in the outbox", error=str(error))
                await asyncio.sleep(BUS_RETRY)
                continue
            except StoreError as error:
                _log.warning("outbox not read; trying again", error=str(error))
            try:
                async with asyncio.timeout(RELAY_INTERVAL):
                    await self._outbox_grew.wait()
            except TimeoutError:
                continue

    async def _publish_all(self) -> None:
        while batch := await self._store.unpublished(RELAY_BATCH):
            await self._bus.publish([event for _, event in batch])
            await self._store.published([position for position, _ in batch], self._clock())


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for running in tasks:
        running.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _announce(snapshot: Snapshot, applied: Applied) -> None:
    """Tell people what a revision did, and each thing that is wrong with it."""
    for fault in snapshot.faults:
        _log.error(str(fault))
    for key, owner in applied.conflicts.items():
        _log.error("declared by two sources; the first keeps it", key=str(key), owner=owner)
    if applied.blocked:
        _log.error(
            "this revision would remove too much at once; look, then: windlass approve REVISION",
            revision=snapshot.revision,
            objects=[str(key) for key in applied.blocked],
        )
    _log.info(
        "revision taken over",
        revision=snapshot.revision[:12],
        author=snapshot.author,
        objects=len(snapshot.documents),
        changed=len(applied.changed),
        removing=len(applied.pruning),
        faults=len(snapshot.faults),
    )
