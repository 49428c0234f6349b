"""Tell an adapter's modules the time of the World, where they ask ``time`` what time it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from types import ModuleType
from unittest.mock import patch


class _WorldTime(ModuleType):
    """Stands where a module has imported ``time``."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__("time")
        self._clock = clock

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    def time(self) -> float:
        return self._clock().timestamp()

    def time_ns(self) -> int:
        return int(self.time() * 1e9)

    monotonic = perf_counter = time
    monotonic_ns = perf_counter_ns = time_ns

    def sleep(self, seconds: float) -> None:
        raise RuntimeError("on a stage nobody sleeps in a thread: the whole stage would stand")


@contextmanager
def telling_the_time(
    modules: Sequence[ModuleType], clock: Callable[[], datetime]
) -> Iterator[None]:
    """Let these modules go by another clock for a while."""
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(patch.object(module, "time", _WorldTime(clock)))
        yield
