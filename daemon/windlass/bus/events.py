"""Events to the broker, with its word that it has them. The end of hop 8.

What the outbox gives is published in its order on one channel, many at a time, and confirmed
before anybody calls it published. A queue that refuses (full, ``reject-publish``) has its own will:
after a few tries the event counts as carried, so that one subscriber never holds up the others. So
it does for a queue that never says anything, once the broker has confirmed something else.
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
"""How often an event is offered to a queue that refuses it; once, if it refused the one before."""
PAUSE = 0.2
LOOK = 1.0
"""Seconds between two looks whether the broker takes messages at all."""
HELD = 60.0
"""Seconds until a queue that does not confirm counts as one that never will."""
HELD_AGAIN = 1.0
"""The same while it has not confirmed what came before."""
SLICE = 100
"""Events at once then: the broker stops a publisher when a queue has some hundred to take."""
HELD_LIMIT = 20_000
"""Events that nobody has confirmed, after which the session is made anew: each takes memory."""
NOBODY = "windlass.nobody"
"""A queue that there is not."""

_log = structlog.get_logger("windlass.bus")


class AmqpBus(Bus):
    """Publishes on the exchange ``windlass.events``."""

    def __init__(self, metrics: BusMetrics) -> None:
        self._metrics = metrics
        self._local = LocalBus()
        self._channel: aiormq.Channel | None = None
        self._session: Session | None = None
        self._up = asyncio.Event()
        self._doubt = False
        """Whether a queue has refused the newest events."""
        self._unsure = False
        """Whether a queue has not confirmed the newest events."""
        self._held = 0
        """Events of this session that a queue has not confirmed."""

    async def serve(self, session: Session) -> None:
        """Publish through this session for as long as it lasts."""
        channel = await session.channel()
        await session.exchange(channel, EVENTS_EXCHANGE)
        underlay = await channel.get_underlay_channel()
        assert isinstance(underlay, aiormq.Channel)
        self._channel, self._session = underlay, session
        self._held = 0
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
        some = SLICE if self._unsure else len(events)
        for at in range(0, len(events), some):
            await self._carry(channel, session, events[at : at + some])

    async def _carry(
        self, channel: aiormq.Channel, session: Session, events: Sequence[CloudEvent]
    ) -> None:
        waiting = list(events)
        for attempt in range(1, 2 if self._doubt else TRIES + 1):
            waiting = await self._offer(channel, session, waiting)
            if not waiting:
                self._doubt = False
                return
            await asyncio.sleep(PAUSE * attempt)
        self._doubt = True
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
        publishing = [asyncio.ensure_future(_publish(channel, event)) for event in events]
        try:
            await self._confirmed(channel, session, publishing)
        finally:
            for each in publishing:
                each.cancel()
        refused, held = [], 0
        for event, each in zip(events, publishing, strict=True):
            if not each.done():
                held += 1
                continue
            error = each.exception()
            if isinstance(error, aiormq.exceptions.DeliveryError):
                refused.append(event)
            elif error is not None:
                raise LinkLostError(f"the broker was lost: {error}") from error
        self._metrics.published.inc(len(events) - len(refused) - held)
        return refused

    async def _confirmed(
        self, channel: aiormq.Channel, session: Session, publishing: Sequence[asyncio.Future[None]]
    ) -> None:
        """Wait for the broker's word on each, unless it is one queue that never gives it.

        Then all that is missing is that queue's word: the others have the events already.
        """
        patience = HELD_AGAIN if self._unsure else HELD
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            _, missing = await asyncio.wait(publishing, timeout=min(patience, LOOK))
            if not missing:
                self._unsure = False
                return
            if await session.held_up():
                began = loop.time()  # an alarm: nobody's queue is to blame
            elif loop.time() - began >= patience:
                await self._check_broker(channel, session)
                break
        self._unsure = True
        self._held += len(missing)
        self._metrics.held.inc(len(missing))
        _log.warning("a subscriber's queue does not confirm events", count=len(missing))
        if self._held > HELD_LIMIT:
            session.lose(f"{self._held} events are not confirmed; starting anew")

    async def _check_broker(self, channel: aiormq.Channel, session: Session) -> None:
        """It confirms what goes to no queue, or it is lost. Raises LinkLostError."""
        try:
            async with asyncio.timeout(CALL):
                await channel.basic_publish(b"", routing_key=NOBODY, wait=False)
        except TimeoutError:
            session.lose(f"the broker did not confirm events within {CALL:g} s")
            raise LinkLostError("the broker does not confirm events") from None
        except (aiormq.exceptions.AMQPError, RuntimeError) as error:
            raise LinkLostError(f"the broker was lost: {error}") from error


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
