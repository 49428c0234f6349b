"""The keyed workqueue: hop 3. Keys wait here, never events.

- A key added often waits once; added while it is worked on, it gets exactly one more pass.
- Never two workers on one key.
- What a target tells goes before edits by people, and those before resyncs.
- Each lane (a target) has a bound of its own, so that a hung backend cannot take all workers.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count

from windlass.metrics import WorkqueueMetrics
from windlass.priority import Priority
from windlass_schemas import Key


class QueueClosed(Exception):
    """The queue is closed; the worker ends."""


@dataclass(order=True)
class _Entry:
    priority: Priority
    number: int
    key: Key = field(compare=False)
    stale: bool = field(default=False, compare=False)
    since: float = field(default=0.0, compare=False)


class WorkQueue:
    """Keys that are due, keys that are worked on, and keys that will be due later."""

    def __init__(
        self, lane_of: Callable[[Key], tuple[str, int]], metrics: WorkqueueMetrics
    ) -> None:
        """``lane_of`` gives a key's lane and how many of that lane may be worked on at once."""
        self._metrics = metrics
        metrics.depth.set_function(lambda: len(self._waiting))
        metrics.unfinished_work.set_function(lambda: sum(self._running()))
        metrics.longest_running.set_function(lambda: max(self._running(), default=0.0))
        self._lane_of = lane_of
        self._heap: list[_Entry] = []
        self._waiting: dict[Key, _Entry] = {}
        self._active: dict[Key, tuple[str | None, float]] = {}
        """Lane, None once it has stepped aside, and since when."""
        self._again: dict[Key, Priority] = {}
        self._busy: dict[str, int] = {}
        self._parked: dict[str, list[_Entry]] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._numbers = count()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self.quiet = asyncio.Event()
        """Set while nothing is due and nothing is worked on."""
        self.quiet.set()
        self.on_done: Callable[[], None] = _nothing
        """Called when a worker becomes free."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def active(self) -> int:
        """How many keys are worked on now."""
        return len(self._active)

    @property
    def working(self) -> int:
        """How many of them have not stepped aside."""
        return sum(self._busy.values())

    @property
    def startable(self) -> int:
        """How many keys wait for nothing but a worker."""
        parked = (entry for entries in self._parked.values() for entry in entries)
        return len(self._waiting) - sum(not entry.stale for entry in parked)

    def full_lanes(self) -> list[str]:
        """Lanes on which keys wait although there may be workers."""
        return list(self._parked)

    def drain(self) -> list[Key]:
        """Take out all that waits, and all that waits for its time."""
        for entry in self._waiting.values():
            entry.stale = True
        for timer in self._timers.values():
            timer.cancel()
        waiting = [*self._waiting, *self._timers]
        self._waiting.clear()
        self._timers.clear()
        self._note_quiet()
        return waiting

    def delayed(self) -> int:
        """How many keys wait for their time."""
        return len(self._timers)

    def holds(self, key: Key) -> bool:
        """Whether the key is due or worked on now."""
        return key in self._waiting or key in self._active

    def knows(self, key: Key) -> bool:
        """Whether the key is here in any way: due, worked on, or waiting for its time."""
        return self.holds(key) or key in self._timers

    def _running(self) -> list[float]:
        """Seconds that each key in work has taken so far."""
        now = time.monotonic()
        return [now - since for _, since in self._active.values()]

    def add(self, key: Key, priority: Priority = Priority.EDIT) -> None:
        """Make a key due now."""
        self._metrics.adds.inc()
        if self._closed:
            return
        self._cancel_timer(key)
        if key in self._active:
            self._again[key] = min(priority, self._again.get(key, priority))
            return
        waiting = self._waiting.get(key)
        if waiting is not None:
            if waiting.priority <= priority:
                return
            waiting.stale = True
        since = waiting.since if waiting else time.monotonic()
        entry = _Entry(priority, next(self._numbers), key, since=since)
        self._waiting[key] = entry
        self.quiet.clear()
        heapq.heappush(self._heap, entry)
        self._wake()

    def add_all(self, keys: Iterable[Key], priority: Priority = Priority.EDIT) -> None:
        """Make keys due now, in this order."""
        for key in keys:
            self.add(key, priority)

    def add_after(self, key: Key, delay: float, priority: Priority = Priority.RESYNC) -> None:
        """Make a key due in ``delay`` seconds, unless it becomes due before."""
        if self._closed or key in self._waiting:
            return
        self._cancel_timer(key)
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(max(delay, 0.0), self._fire, key, priority)

    def _fire(self, key: Key, priority: Priority) -> None:
        self._timers.pop(key, None)
        self.add(key, priority)

    def _cancel_timer(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    async def take(self) -> Key:
        """Wait for the next due key and hold it until ``done``. Raises QueueClosed."""
        while True:
            if self._closed:
                raise QueueClosed
            key = self._next()
            if key is not None:
                return key
            waiter = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()  # this wake-up was meant for a worker that goes
                raise

    def _next(self) -> Key | None:
        while self._heap:
            entry = heapq.heappop(self._heap)
            if entry.stale:
                continue
            lane, bound = self._lane_of(entry.key)
            if self._busy.get(lane, 0) >= bound:
                heapq.heappush(self._parked.setdefault(lane, []), entry)
                continue
            del self._waiting[entry.key]
            now = time.monotonic()
            self._metrics.queue_duration.observe(now - entry.since)
            self._active[entry.key] = (lane, now)
            self._busy[lane] = self._busy.get(lane, 0) + 1
            return entry.key
        return None

    def step_aside(self, key: Key) -> None:
        """Its backend is not needed any more: another key of the lane may be worked on.

        The key itself is held until ``done``.
        """
        lane, since = self._active[key]
        self._active[key] = (None, since)
        self._leave(lane)

    def done(self, key: Key) -> None:
        """Give a taken key back; if it was added meanwhile, it is due again."""
        lane, since = self._active.pop(key)
        self._metrics.work_duration.observe(time.monotonic() - since)
        again = self._again.pop(key, None)
        if again is not None:
            self.add(key, again)
        self._leave(lane)
        self._note_quiet()
        self.on_done()

    def _leave(self, lane: str | None) -> None:
        """One less is worked on there, so that one that waits for it can begin."""
        if lane is None:
            return
        self._busy[lane] -= 1
        if self._busy[lane] == 0:
            del self._busy[lane]
        parked = self._parked.get(lane)
        while parked:
            entry = heapq.heappop(parked)
            if not entry.stale:
                heapq.heappush(self._heap, entry)
                self._wake()
                break
        if not parked:
            self._parked.pop(lane, None)

    def _note_quiet(self) -> None:
        if not self._waiting and not self._active:
            self.quiet.set()

    def _wake(self) -> None:
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def close(self) -> None:
        """No more keys: takers that wait or come raise QueueClosed; keys worked on finish."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        while self._idle:
            self._wake()


def _nothing() -> None:
    """Nobody needs to know."""
