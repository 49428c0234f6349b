"""What is due: hop 3, where one daemon works alone and where several share a store.

Alone, the queue of the process is all there is. With others, the store knows what is due when; this
daemon takes as much of that as it has room for, and the queue holds only what it has taken.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from windlass.metrics import SharingMetrics
from windlass.outcome import Result
from windlass.priority import Priority
from windlass.store.base import Store, StoreError
from windlass.store.roster import Roster
from windlass.workqueue import WorkQueue
from windlass_schemas import Key

LOOK_INTERVAL = 5.0
"""Seconds after which the store is asked what is due although nothing has said that anything is."""
AWAY_INTERVAL = 1.0
"""Seconds until a store that did not answer is asked again."""

_log = structlog.get_logger("windlass.agenda")

PutLane = Callable[[Key, str], None]
"""Take note of the lane that a key is on."""


class Agenda(Protocol):
    """Where it is kept what is due."""

    @abstractmethod
    async def declared(self, keys: Sequence[Key]) -> None:
        """A source has changed these: they are due, and all that stands on them."""

    @abstractmethod
    async def passed(self, key: Key, result: Result) -> None:
        """A pass was written; see to what follows it."""

    @abstractmethod
    def asked(self, keys: Iterable[Key]) -> None:
        """Somebody asked for these, and the store knows it."""

    @abstractmethod
    async def told(self, keys: Sequence[Key]) -> None:
        """A backend has something new on these: a hint, which may get lost."""

    @abstractmethod
    async def begin(self, keys: Sequence[Key]) -> None:
        """A daemon starts: look at these once."""

    @abstractmethod
    async def feed(self, workers: int) -> None:
        """Keep the queue filled, for ever."""


class OwnAgenda(Agenda):
    """All of it is in the queue of this process."""

    def __init__(self, store: Store, queue: WorkQueue) -> None:
        self._store = store
        self._queue = queue

    async def declared(self, keys: Sequence[Key]) -> None:
        self._queue.add_all(await self._with_dependents(keys), Priority.EDIT)

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

    async def passed(self, key: Key, result: Result) -> None:
        if result.changed:
            self._queue.add_all(await self._store.dependents(key), Priority.FOLLOW_UP)
            self._queue.add_all(result.wake, Priority.FOLLOW_UP)
        if result.requeue_after is None:
            return
        if result.requeue_after == 0:
            self._queue.add(key, Priority.FOLLOW_UP)
        else:
            self._queue.add_after(key, result.requeue_after, result.priority)

    def asked(self, keys: Iterable[Key]) -> None:
        self._queue.add_all(keys, Priority.EDIT)

    async def told(self, keys: Sequence[Key]) -> None:
        self._queue.add_all(keys, Priority.NEWS)

    async def begin(self, keys: Sequence[Key]) -> None:
        self._queue.add_all(keys, Priority.RESYNC)

    async def feed(self, workers: int) -> None:
        """Nothing comes from elsewhere."""


class SharedAgenda(Agenda):
    """It is in the store, which daemons share; every write there says itself what is due now."""

    def __init__(
        self, roster: Roster, queue: WorkQueue, put_lane: PutLane, metrics: SharingMetrics
    ) -> None:
        self._roster = roster
        self._queue = queue
        self._put_lane = put_lane
        self._metrics = metrics
        self._more = asyncio.Event()
        queue.on_done = self._more.set

    def hint(self) -> None:
        """There may be more that is due."""
        self._more.set()

    async def declared(self, keys: Sequence[Key]) -> None:
        self._more.set()

    async def passed(self, key: Key, result: Result) -> None:
        self._more.set()

    def asked(self, keys: Iterable[Key]) -> None:
        self._more.set()

    async def told(self, keys: Sequence[Key]) -> None:
        with suppress(StoreError):  # then it is looked at when its time has come
            await self._roster.look(keys, Priority.NEWS)
        self._more.set()

    async def begin(self, keys: Sequence[Key]) -> None:
        if keys:
            await self._roster.look(keys, Priority.RESYNC)
        self._more.set()

    async def feed(self, workers: int) -> None:
        unsure = False
        while True:
            self._more.clear()
            try:
                if unsure:
                    await self.recollect()
                wait = await self._fill(workers)
                unsure = False
            except StoreError as error:
                _log.warning("the store did not say what is due; asking again", error=str(error))
                unsure = True
                await asyncio.sleep(AWAY_INTERVAL)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._more.wait()

    async def _fill(self, workers: int) -> float:
        """Take what there is room for; seconds until there may be more without a hint.

        As much again as is worked on waits here, so that no worker waits for the store; what is
        left in the store is for others.
        """
        room = 2 * workers - self._queue.working - self._queue.startable
        if room < workers and self._queue.startable:
            return LOOK_INTERVAL
        taken = await self._roster.take(room, self._queue.full_lanes())
        for due in taken:
            self._put_lane(due.key, due.lane)
            self._metrics.taken_over.inc(bool(due.former and due.former != self._roster.name))
            self._queue.add(due.key, due.priority)
        if len(taken) == room:
            return LOOK_INTERVAL
        next_due = await self._roster.next_due()
        return LOOK_INTERVAL if next_due is None else min(max(next_due, 0.01), LOOK_INTERVAL)

    async def recollect(self) -> None:
        """See to what the books say is ours and nobody here knows of.

        The answer to a take that was written may have got lost; others leave to us what is ours.
        """
        for due in await self._roster.mine():
            if not self._queue.knows(due.key):
                self._put_lane(due.key, due.lane)
                self._queue.add(due.key, due.priority)

    async def hand_over(self) -> None:
        """Leave to others what was taken and not begun."""
        await self._roster.give_back(self._queue.drain())
