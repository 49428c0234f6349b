"""The tasks of a daemon: sources feed the queue, workers run passes, the relay empties the outbox.

Every task has a parent here. A source that breaks ends the daemon; a pass that breaks does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress

import structlog

from windlass.agenda import Agenda, OwnAgenda, SharedAgenda
from windlass.bus.base import Bus
from windlass.company import Alone, Colleagues, Company
from windlass.declarations import Declarations
from windlass.following import Following
from windlass.hearing import Hearing
from windlass.lanes import Lanes
from windlass.metrics import Metrics
from windlass.priority import Priority
from windlass.reconciler import Reconciler
from windlass.relay import Relay
from windlass.sources.base import Source
from windlass.store.base import LeaseLostError, StoreError
from windlass.store.inbox import MESSAGE_SOURCES, Inbox, Receipt, SpecMessage
from windlass.targets import Targets
from windlass.troubles import Troubles
from windlass.workqueue import QueueClosed, WorkQueue
from windlass_schemas import Key

STORE_RETRY = 5.0
"""Seconds until a write is tried again that the store did not take."""
AWAY_RETRY = 1.0
"""The same for a store that is a server: it is away, and comes back without anybody making room."""
SOURCES_FIRST = 5.0
"""Seconds at a start for which the look at everything waits for the sources' first word."""
NEWS_FIRST = 0.5
"""Seconds for which it waits then, at most, while what is newly declared is worked on."""

_log = structlog.get_logger("windlass.controller")

Feed = Callable[[], Coroutine[None, None, None]]


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
        store, clock = reconciler.store, reconciler.clock
        self._store = store
        self._clock = clock
        self._reconciler = reconciler
        self._metrics = metrics
        self._lanes = Lanes(targets)
        self.queue = WorkQueue(self._lanes, metrics.workqueue)
        self.troubles = Troubles()
        self._relay = Relay(store, bus, clock)
        self._agenda: Agenda
        self._company: Company
        if store.roster is None:
            self._store_retry = STORE_RETRY
            self._agenda, self._company = OwnAgenda(store, self.queue), Alone()
        else:
            self._store_retry = AWAY_RETRY
            shared = SharedAgenda(store.roster, self.queue, self._lanes.put, metrics.sharing)
            self._agenda, self._company = (
                shared,
                Colleagues(store.roster, shared, self._relay, metrics.sharing, self.troubles),
            )
        self._hearing = Hearing(targets, self._agenda.told, metrics.reconcile)
        self._declarations = Declarations(
            store, self._agenda, self._lanes, clock, self.troubles, self._store_retry
        )
        self.following = Following(sources, self._declarations, self._company)
        self._feeds: list[Feed] = []

    def listen(self, inbox: Inbox, feed: Feed) -> None:
        """Take messages too, which ``feed`` brings to ``hear`` until it is cancelled."""
        self._declarations.inbox = inbox
        self._feeds.append(feed)

    async def run(self, stop: asyncio.Event, workers: int, grace: float) -> None:
        """Run ``workers`` workers until ``stop`` is set; passes under way get ``grace`` seconds."""
        self._metrics.reconcile.max_concurrent.set(workers)
        self._metrics.reconcile.active_workers.set_function(lambda: self.queue.working)
        await self._part_with_others()
        async with asyncio.TaskGroup() as group:
            feeding = [group.create_task(follow) for follow in self.following.tasks()]
            feeding += [group.create_task(feed()) for feed in self._feeds]
            feeding.append(group.create_task(self._agenda.feed(workers)))
            feeding.append(group.create_task(self._look_at_all()))
            feeding.append(group.create_task(self._hearing.run()))
            room = asyncio.Semaphore(workers)
            working = [group.create_task(self._work(room)) for _ in range(2 * workers)]
            relay = self._company.only_here("outbox", self._relay.run, _stand_by)
            lasting = [group.create_task(each) for each in (relay, *self._company.tasks())]
            await stop.wait()
            await _cancel(feeding)
            grace = await self._company.hand_over(grace)
            self.queue.close()
            await asyncio.wait(working, timeout=grace)
            await _cancel(working)
            await _cancel(lasting)
        await self._company.leave()

    def pending(self, key: Key) -> bool:
        """Whether the key is due or worked on, or may be so once the newest revision is in."""
        return self._declarations.busy or self.queue.holds(key)

    def enqueue(self, keys: Iterable[Key]) -> None:
        """Look at these now: somebody asked."""
        self._agenda.asked(keys)

    async def transferred(self, to: str) -> None:
        """A key has another owner now: what that one declares comes into force."""
        await self._declarations.take_again(to)

    async def news_first(self) -> None:
        """At a start, the sources get a moment to say what is new, and that another one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SOURCES_FIRST):
                await self.following.all_heard.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(NEWS_FIRST):
                await self.queue.quiet.wait()

    async def hear(self, messages: Sequence[SpecMessage]) -> Sequence[Receipt]:
        """Take over what messages declare; durable on return."""
        receipts = await self._declarations.hear(messages)
        if any(receipt.verdict in ("refused", "conflict") for receipt in receipts):
            self._relay.tell_news()
        return receipts

    # -- at a start -------------------------------------------------------------------------------

    async def _part_with_others(self) -> None:
        """Objects of sources that nobody follows any more stay; people may delete them by hand."""
        followed = await self.following.ids()
        for state in await self._store.sources():
            if self._feeds and state.id.startswith(MESSAGE_SOURCES):
                await self._store.fail_source(state.id, "", self._clock())
            elif state.id not in followed:
                error = "not followed by this daemon; its objects stay until windlass delete"
                await self._store.fail_source(state.id, error, self._clock())

    async def _look_at_all(self) -> None:
        """Everything that is declared is looked at once at a start.

        What is newly declared goes first.
        """
        await self.news_first()
        while True:
            try:
                found = await self._store.placed()
                for key, lane in found:
                    self._lanes.put(key, lane)
                await self._agenda.begin([key for key, _ in await self._company.mine(found)])
            except StoreError as error:
                self.troubles.store = str(error)
                _log.error("objects not read; trying again", error=str(error))
                await asyncio.sleep(self._store_retry)
            else:
                return

    # -- hops 4 to 8 ------------------------------------------------------------------------------

    async def _work(self, room: asyncio.Semaphore) -> None:
        """Pass over one key after the other, while there is room.

        Whoever only writes its outcome makes room: a backend does not wait for our disk. As many
        may write as may work, so that a store that takes nothing stops everything soon.
        """
        while True:
            await room.acquire()
            try:
                key = await self.queue.take()
            except QueueClosed:
                room.release()
                return
            await self._turn(key, room)

    async def _turn(self, key: Key, room: asyncio.Semaphore) -> None:
        decided = False

        def step_aside() -> None:
            nonlocal decided
            decided = True
            self.queue.step_aside(key)
            room.release()

        try:
            await self._pass(key, step_aside)
        finally:
            self.queue.done(key)
            if not decided:
                room.release()

    async def _pass(self, key: Key, decided: Callable[[], None]) -> None:
        try:
            result = await self._reconciler.reconcile(key, decided)
        except LeaseLostError as error:
            self._metrics.sharing.lost.inc()
            _log.warning("pass overtaken; looking again", key=str(key), error=str(error))
            self.queue.add_after(key, 1.0, Priority.FOLLOW_UP)
            return
        except StoreError as error:
            _log.error("outcome not written; looking again", key=str(key), error=str(error))
            self.troubles.store = str(error)
            self.queue.add_after(key, self._store_retry, Priority.FOLLOW_UP)
            return
        if result.changed:
            self.troubles.store = ""
            self._relay.tell_news()
        await self._agenda.passed(key, result)
        if result.freed:
            await self._declarations.let_go(key, result.freed)


def _stand_by() -> None:
    """Another daemon empties the outbox: nothing here waits for that."""


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for running in tasks:
        running.cancel()
    if tasks:
        await asyncio.wait(tasks)
