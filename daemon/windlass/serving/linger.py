"""The moment that a free lane waits for the clients that it has just answered.

Outside the eight hops. Clients that ask again as soon as they are answered would otherwise fall
into two half batches, one of which always waits for the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Linger:
    """Begun after a batch; over when as many wait as were answered, or when the time is up."""

    def __init__(self, loop: asyncio.AbstractEventLoop, then: Callable[[], None]) -> None:
        self._loop = loop
        self._then = then
        self._timer: asyncio.TimerHandle | None = None
        self._until = 0.0
        self._expected = 0

    def begin(self, seconds: float, expected: int) -> None:
        """Wait at most so long for so many."""
        self._until = self._loop.time() + seconds
        self._expected = expected

    def holds(self, waiting: int) -> bool:
        """Whether it is better to wait on; ``then`` is called when that may have changed."""
        if self._expected <= 1 or waiting >= self._expected or self._loop.time() >= self._until:
            self._expected = 0
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            return False
        if self._timer is None:
            self._timer = self._loop.call_at(self._until, self._ended)
        return True

    def _ended(self) -> None:
        self._timer = None
        self._expected = 0
        self._then()
