"""The relay: what passes have written to the outbox goes to the bus. The end of hop 8."""

from __future__ import annotations

import asyncio

import structlog

from windlass.bus.base import Bus
from windlass.clock import Clock
from windlass.store.base import Store, StoreError

BATCH = 500
"""Events that are handed to the bus at once."""
BUS_RETRY = 1.0
"""Seconds until events are offered again to a bus that was away."""
PACE = 0.25
"""Seconds between two marks, at least, where nothing is sent and nobody waits for that."""
INTERVAL = 5.0
"""Seconds after which the outbox is read although nothing has said that it has grown."""

_log = structlog.get_logger("windlass.relay")


class Relay:
    """Publishes in order, and only then marks: at least once. One daemon at a time runs it."""

    def __init__(self, store: Store, bus: Bus, clock: Clock) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._outbox_grew = asyncio.Event()

    def tell_news(self) -> None:
        """There are new events: the relay has work, and who follows them here looks again."""
        self._outbox_grew.set()
        self._bus.wake()

    async def run(self) -> None:
        """Empty the outbox whenever there is something in it, for ever."""
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
            if not self._bus.sends:
                await asyncio.sleep(PACE)
            try:
                async with asyncio.timeout(INTERVAL):
                    await self._outbox_grew.wait()
            except TimeoutError:
                continue

    async def _publish_all(self) -> None:
        if not self._bus.sends:
            await self._store.published(None, self._clock())
            return
        while batch := await self._store.unpublished(BATCH):
            await self._bus.publish([event for _, event in batch])
            await self._store.published([position for position, _ in batch], self._clock())
