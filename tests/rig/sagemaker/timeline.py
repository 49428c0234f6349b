"""Virtual time for the double: state machines are actions that fall due on a timeline.

The timeline moves when a test says so, or follows a clock that somebody else drives (a kernel under
test, the machine). Actions run in order, each at the very moment at which it fell due.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]


@dataclass(order=True)
class Due:
    """Something that happens at a moment, unless it is called off before."""

    at: float
    order: int
    action: Callable[[], None] = field(compare=False)
    off: bool = field(default=False, compare=False)


class Timeline:
    """Is itself a clock, so that whatever is under test can be driven by the same time."""

    def __init__(self, source: Clock | None = None) -> None:
        self._source = source
        self._now = (source() if source else datetime.now(UTC)).replace(microsecond=0).timestamp()
        self._due: list[Due] = []
        self._order = 0
        self.ran = 0
        """How many actions there have been."""

    def __call__(self) -> datetime:
        """The current time, in UTC."""
        return datetime.fromtimestamp(self.seconds, UTC)

    @property
    def seconds(self) -> float:
        """The current time in seconds since 1970."""
        return self._now

    def follow(self, source: Clock) -> None:
        """Take the time from another clock from now on; it may only go forward."""
        self._source = source

    def advance(self, seconds: float = 0.0, **duration: float) -> None:
        """Let time pass, with everything that falls due on the way.

        Raises RuntimeError when the timeline follows another clock.
        """
        if self._source is not None:
            raise RuntimeError("this timeline follows another clock: advance that one")
        self._run_until(self._now + timedelta(seconds=seconds, **duration).total_seconds())

    def catch_up(self) -> None:
        """Run what has fallen due by the clock that is followed."""
        if self._source is not None:
            self._run_until(self._source().timestamp())

    def at(self, delay: float, action: Callable[[], None]) -> Due:
        """Let something happen after a delay in seconds."""
        self._order += 1
        due = Due(self._now + delay, self._order, action)
        heapq.heappush(self._due, due)
        return due

    def _run_until(self, end: float) -> None:
        while self._due and self._due[0].at <= end:
            due = heapq.heappop(self._due)
            self._now = max(self._now, due.at)
            if not due.off:
                self.ran += 1
                due.action()
        self._now = max(self._now, end)
