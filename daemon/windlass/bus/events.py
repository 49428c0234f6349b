"""Events to the broker, with its word that it has them. The end of hop 8.

What the outbox gives is published in its order on one channel, many at a time, and confirmed
before anybody calls it published. A queue that refuses (full, ``reject-publish``) has its own will:
after a few tries the event counts as carried, so that one subscriber never holds up the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

import aiormq
import structlog
from pamqp.commands import Basic

from windlass.bus.base import Bus
from windlass.bus.link import CALL, LinkLostError, Session
from windlass.bus.local import LocalBus
from windlass.bus.topology import EVENTS, EVENTS_EXCHANGE
from windlass.metrics import BusMetrics
from windlass_schemas import CloudEvent

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
PATIENCE = 5.0
"""Seconds that a publisher waits for the broker to be there."""
TRIES = 3
"""How often an event is offered to a queue that refuses it."""
PAUSE = 0.2

_log = structlog.get_logger("windlass.bus")


class AmqpBus(Bus):
    """Publishes on the exchange ``windlass.events``."""

    def __init__(self, metrics: BusMetrics) -> None:
        self._metrics = metrics
        self._local = LocalBus()
        self._channel: aiormq.Channel | None = None
        self._session: Session | None = None
        self._up = asyncio.Event()

    async def serve(self, session: Session) -> None:
        """Publish through this session for as long as it lasts."""
        channel = await session.channel()
        await session.exchange(channel, EVENTS_EXCHANGE)
        underlay = await channel.get_underlay_channel()
        assert isinstance(underlay, aiormq.Channel)
        self._channel, self._session = underlay, session
        self._up.set()
        session.ready()
        try:
            await asyncio.Event().wait()
        finally:
            self._up.clear()
            self._channel = self._session = None

    def wake(self) -> None:
        self._local.wake()

    def subscribe(self) -> AbstractAsyncContextManager[AsyncIterator[int]]:
        return self._local.subscribe()

    async def publish(self, events: Sequence[CloudEvent]) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._up.wait()
        except TimeoutError:
            raise LinkLostError("the broker is away") from None
        channel, session = self._channel, self._session
        if channel is None or session is None:
            raise LinkLostError("the broker is away")
        waiting = list(events)
        for attempt in range(1, TRIES + 1):
            waiting = await self._offer(channel, session, waiting)
            if not waiting:
                return
            await asyncio.sleep(PAUSE * attempt)
        self._metrics.rejected.inc(len(waiting))
        _log.warning(
            "a subscriber's queue refuses events and goes without them",
            events=[event.id for event in waiting[:5]],
            count=len(waiting),
        )

    async def _offer(
        self, channel: aiormq.Channel, session: Session, events: Sequence[CloudEvent]
    ) -> list[CloudEvent]:
        """Publish all; those that a queue refused. Raises OSError when the broker is lost."""
        try:
            async with asyncio.timeout(CALL):
                answers = await asyncio.gather(
                    *(_publish(channel, event) for event in events), return_exceptions=True
                )
        except TimeoutError:
            session.lose(f"the broker did not confirm events within {CALL:g} s")
            raise LinkLostError("the broker does not confirm events") from None
        refused = []
        for event, answer in zip(events, answers, strict=True):
            if isinstance(answer, aiormq.exceptions.DeliveryError):
                refused.append(event)
            elif isinstance(answer, BaseException):
                raise LinkLostError(f"the broker was lost: {answer}") from answer
        self._metrics.published.inc(len(events) - len(refused))
        return refused


async def _publish(channel: aiormq.Channel, event: CloudEvent) -> None:
    properties = Basic.Properties(
        content_type=CONTENT_TYPE,
        delivery_mode=2,
        message_id=event.id,
        message_type=event.type,
        timestamp=event.time,
    )
    await channel.basic_publish(
        event.model_dump_json().encode(),
        exchange=EVENTS,
        routing_key=event.routing_key,
        properties=properties,
        wait=False,
    )
