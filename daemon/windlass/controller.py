"""The tasks of a daemon: sources feed the queue, workers run passes, the relay empties the outbox.

Every task has a parent here. A source that breaks ends the daemon; a pass that breaks does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

import structlog

from windlass.agenda import Agenda, OwnAgenda, SharedAgenda
from windlass.bus.base import Bus
from windlass.hearing import Hearing
from windlass.metrics import Metrics
from windlass.priority import Priority
from windlass.reconciler import Reconciler
from windlass.sources.base import Source, SourceUnavailableError
from windlass.standing import while_held
from windlass.store.base import Applied, LeaseLostError, Snapshot, StoreError
from windlass.store.declaring import lane_of
from windlass.store.inbox import MESSAGE_SOURCES, Inbox, Receipt, SpecMessage
from windlass.store.roster import Roster, source_lease, source_of
from windlass.targets import Targets
from windlass.workqueue import QueueClosed, WorkQueue
from windlass_schemas import Key

STORE_RETRY = 5.0
"""Seconds until a write is tried again that the store did not take."""
AWAY_RETRY = 1.0
"""The same for a store that is a server: it is away, and comes back without anybody making room."""
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
HAND_OVER = 1.5
"""Seconds that passes get at a stop when another daemon can go on with them."""
REVISIT_INTERVAL = 5.0
"""Seconds between two looks whether a source is to declare its set again."""
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

    def put(self, key: Key, lane: str) -> None:
        """Take note of where an object is to run."""
        self._lanes[key] = lane

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
        self._roster = self._store.roster
        self._store_retry = STORE_RETRY if self._roster is None else AWAY_RETRY
        self._shared: SharedAgenda | None = None
        if self._roster is not None:
            lane = self._lanes.put
            self._shared = SharedAgenda(self._roster, self.queue, lane, metrics.sharing)
        self._agenda: Agenda = self._shared or OwnAgenda(self._store, self.queue)
        self._hearing = Hearing(targets, self._agenda.told, metrics.reconcile)
        self._outbox_grew = asyncio.Event()
        self._snapshots: dict[str, Snapshot] = {}
        """The newest of each source."""
        self._taking = asyncio.Lock()
        """Held until what a revision changes is in the store and in the queue."""
        self._heard: set[str] = set()
        self._all_heard = asyncio.Event()
        if not sources:
            self._all_heard.set()
        self._vacancy = asyncio.Event()
        """Set when another daemon has left what only one does."""
        self._inbox: Inbox | None = None
        self._feeds: list[Feed] = []
        self.following: set[str] = set()
        """Sources that this daemon follows now; the others, another one does."""
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
            feeding.append(group.create_task(self._agenda.feed(workers)))
            feeding.append(group.create_task(self._tell_notes()))
            feeding.append(group.create_task(self._look_at_all()))
            feeding.append(group.create_task(self._hearing.run()))
            working = [group.create_task(self._work()) for _ in range(workers)]
            lasting = [group.create_task(self._only_here("outbox", self._relay))]
            if self._roster is not None:
                lasting.append(group.create_task(self._beat(self._roster)))
                lasting.append(group.create_task(self._hear_others(self._roster)))
            await stop.wait()
            await _cancel(feeding)
            if self._shared is not None:
                grace = min(grace, HAND_OVER)
                with suppress(StoreError):  # it lapses by itself
                    await self._shared.hand_over()
            self.queue.close()
            await asyncio.wait(working, timeout=grace)
            await _cancel(working)
            await _cancel(lasting)
        if self._roster is not None:
            with suppress(StoreError):
                await self._roster.leave()

    def pending(self, key: Key) -> bool:
        """Whether the key is due or worked on, or may be so once the newest revision is in."""
        return self._taking.locked() or self.queue.holds(key)

    def enqueue(self, keys: Iterable[Key]) -> None:
        """Look at these now: somebody asked."""
        self._agenda.asked(keys)

    # -- among other daemons ----------------------------------------------------------------------

    async def _only_here(self, lease: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do what one daemon at a time does, if there are others."""
        if self._roster is None:
            await work()
        else:
            await while_held(self._roster, lease, work, self._stand_by, self._vacancy)

    def _stand_by(self) -> None:
        """Another daemon follows a source: this one need not wait for its first word."""
        self._all_heard.set()

    async def _beat(self, roster: Roster) -> None:
        """Say that this daemon is alive, three times in the time after which it would not be."""
        while True:
            try:
                self._metrics.sharing.held.set(await roster.beat())
                if self._shared is not None:
                    await self._shared.recollect()
                self.store_error = ""
            except LeaseLostError:
                raise
            except StoreError as error:
                self.store_error = str(error)
                _log.error("not known to be alive; trying again", error=str(error))
            await asyncio.sleep(roster.lease.total_seconds() / 3)

    async def _hear_others(self, roster: Roster) -> None:
        """What others say has happened is looked up at once."""
        async with roster.hints() as hints:
            async for what in hints:
                if what == "events":
                    self._outbox_grew.set()
                    self._bus.wake()
                if what == "left":
                    self._vacancy.set()
                if self._shared is not None:
                    self._shared.hint()

    # -- hops 1 to 3 ------------------------------------------------------------------------------

    async def _part_with_others(self) -> None:
        """Objects of sources that nobody follows any more stay; people may delete them by hand."""
        followed = {source.id for source in self._sources} | await self._followed_elsewhere()
        for state in await self._store.sources():
            if self._feeds and state.id.startswith(MESSAGE_SOURCES):
                await self._store.fail_source(state.id, "", self._clock())
            elif state.id not in followed:
                error = "not followed by this daemon; its objects stay until windlass delete"
                await self._store.fail_source(state.id, error, self._clock())

    async def _followed_elsewhere(self) -> set[str]:
        if self._roster is None:
            return set()
        alive = [each for each in await self._roster.colleagues() if each.alive]
        return {source_of(lease) for each in alive for lease in each.leases}

    async def _look_at_all(self) -> None:
        """Everything that is declared is looked at once at a start.

        What is newly declared goes first: the sources get a moment to say what that is.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(SOURCES_FIRST):
                await self._all_heard.wait()
        while True:
            try:
                found = await self._store.placed()
                for key, lane in found:
                    self._lanes.put(key, lane)
                await self._agenda.begin([key for key, _ in await self._mine(found)])
            except StoreError as error:
                self.store_error = str(error)
                _log.error("objects not read; trying again", error=str(error))
                await asyncio.sleep(self._store_retry)
            else:
                return

    async def _mine(self, found: Sequence[tuple[Key, str]]) -> Sequence[tuple[Key, str]]:
        """What is looked at by this start: with others at work, only what lives on this host."""
        if self._roster is None:
            return found
        alive = [each for each in await self._roster.colleagues() if each.alive]
        if len(alive) < 2:
            return found
        me = next(each for each in alive if each.name == self._roster.name)
        return [(key, lane) for key, lane in found if lane in me.targets]

    async def _follow(self, source: Source) -> None:
        async def work() -> None:
            self.following.add(source.id)
            try:
                async with asyncio.TaskGroup() as group:
                    if self._roster is not None:
                        group.create_task(self._revisit(source.id, self._roster))
                    await self._follow_alone(source)
            finally:
                self.following.discard(source.id)
                self._snapshots.pop(source.id, None)

        await self._only_here(source_lease(source.id), work)

    async def _revisit(self, source: str, roster: Roster) -> None:
        """Declare the newest set again whenever another daemon has let go what it declares too."""
        seen: int | None = None
        while True:
            with suppress(StoreError):
                found = (await roster.revisits([source])).get(source)
                if seen is not None and found != seen:
                    await self._take_again(source)
                seen = found
            await asyncio.sleep(REVISIT_INTERVAL)

    async def _follow_alone(self, source: Source) -> None:
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
        async with self._taking:
            self._snapshots[snapshot.source] = snapshot
            applied = await self._apply(snapshot)
            self.source_errors.pop(snapshot.source, None)
            await self._agenda.declared(applied.changed)
        _announce(snapshot, applied)

    async def _take_again(self, source: str) -> None:
        """Another source has let a key go that this one declares too."""
        async with self._taking:
            snapshot = self._snapshots.get(source)
            if snapshot is None:  # it is not followed any more, or comes with its first set
                return
            try:
                applied = await self._apply(snapshot)
            except LeaseLostError:  # who follows it now has been asked too
                return
            await self._agenda.declared(applied.changed)

    async def _let_go(self, key: Key, to: str) -> None:
        """A key is free that another source declares too."""
        if self._inbox is None or not to.startswith(MESSAGE_SOURCES):
            await self._take_again(to)
            return
        async with self._taking:
            taken = await self._inbox.retake(key, to, self._clock())
            await self._agenda.declared(taken)

    async def transferred(self, to: str) -> None:
        """A key has another owner now: what that one declares comes into force."""
        await self._take_again(to)

    async def hear(self, messages: Sequence[SpecMessage]) -> Sequence[Receipt]:
        """Write what messages declare, however long the store refuses it; durable on return."""
        inbox = self._inbox
        assert inbox is not None, "listen was called"
        for message in messages:
            if message.document is not None:
                self._lanes.put(message.document.key, lane_of(message.document.resource))
        async with self._taking:
            receipts = await self._insist(lambda: inbox.receive(messages, self._clock()))
            due = [r.key for r in receipts if r.is_due and r.key is not None]
            await self._agenda.declared(tuple(dict.fromkeys(due)))
        if any(receipt.verdict in ("refused", "conflict") for receipt in receipts):
            self._tell_news()
        return receipts

    async def _apply(self, snapshot: Snapshot) -> Applied:
        applied = await self._insist(lambda: self._store.apply(snapshot, self._clock()))
        changed = frozenset(applied.changed)
        for document in snapshot.documents:
            if document.key in changed:
                self._lanes.put(document.key, lane_of(document.resource))
        return applied

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
                await asyncio.sleep(self._store_retry)
            else:
                self.store_error = ""
                return result

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
            self._metrics.sharing.lost.inc()
            _log.warning("pass overtaken; looking again", key=str(key), error=str(error))
            self.queue.add_after(key, 1.0, Priority.FOLLOW_UP)
            return
        except StoreError as error:
            _log.error("outcome not written; looking again", key=str(key), error=str(error))
            self.store_error = str(error)
            self.queue.add_after(key, self._store_retry, Priority.FOLLOW_UP)
            return
        self.store_error = "" if result.changed else self.store_error
        if result.changed:
            self._tell_news()
        await self._agenda.passed(key, result)
        if result.freed:
            await self._let_go(key, result.freed)

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
