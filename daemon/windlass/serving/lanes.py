"""A lane: one thread that computes beside the event loop, one piece of work at a time.

Outside the eight hops. ONNX Runtime lets the interpreter lock go while it computes, and several
lanes share one session: they cost no memory.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")


class Lane:
    """One thread, made in the loop that gets its results."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Callable[[], Callable[[], None]] | None] = SimpleQueue()
        # A daemon: a model that runs without end must not hold up the end of the process.
        threading.Thread(target=self._live, name="lane", daemon=True).start()

    def submit(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Do the work in the thread, then tell its result in the loop. Work must not raise."""

        def whole() -> Callable[[], None]:
            result = work()
            return lambda: then(result)

        self._queue.put(whole)

    def close(self) -> None:
        """End the thread after what it does now."""
        self._queue.put(None)

    def _live(self) -> None:
        while (whole := self._queue.get()) is not None:
            tell = whole()
            try:
                self._loop.call_soon_threadsafe(tell)
            except RuntimeError:
                return  # the loop is closed: nobody waits for an answer any more
            del whole, tell  # or the thread would keep the last batch while it has nothing to do
