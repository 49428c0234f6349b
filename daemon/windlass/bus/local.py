"""The in-process bus: subscribers are woken and read the store's event log. Nothing is queued."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count

from windlass.bus.base import Bus
from windlass_schemas import CloudEvent


class LocalBus(Bus):
    """One wake-up flag per subscriber: a slow one misses no event, since it reads the log."""

    sends = False

    def __init__(self) -> None:
        self._flags: set[asyncio.Event] = set()

    def wake(self) -> None:
        for flag in self._flags:
            flag.set()

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        return

    @asynccontextmanager
    async def subscribe(self) -> AsyncIterator[AsyncIterator[int]]:
        flag = asyncio.Event()
        flag.set()  # there may be something to read already
        self._flags.add(flag)
        try:
            yield _wakeups(flag)
        finally:
            self._flags.discard(flag)


async def _wakeups(flag: asyncio.Event) -> AsyncIterator[int]:
    for number in count(1):
        await flag.wait()
        flag.clear()
        yield number
