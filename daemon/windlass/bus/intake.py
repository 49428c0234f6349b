"""Spec messages from the broker into the store: hops 1 and 2, one batch at a time.

A message is acknowledged after the store has it, and never waits for a pass. One that is wrong is
answered, copied to ``windlass.dead`` with its reason, and acknowledged: nothing is ever requeued,
so nothing loops. When the store takes nothing, nothing is acknowledged and no more is taken.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence

import aio_pika
import structlog
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage

from windlass.bus.answers import answer_body
from windlass.bus.events import CONTENT_TYPE
from windlass.bus.link import CALL, Session
from windlass.bus.topology import (
    DEAD_EXCHANGE,
    DEAD_QUEUE,
    SPECS,
    SPECS_EXCHANGE,
    SPECS_QUEUE,
    is_answerable,
)
from windlass.metrics import BusMetrics
from windlass.sources.base import SourceUnavailableError
from windlass.sources.messages import Delivery, MessageReader
from windlass.store.inbox import Receipt, SpecMessage

PREFETCH = 64
"""Messages that are taken at once, and committed together: the disk makes each commit wait."""
SMALL = 16 * 1024
"""Bytes of a message that is read at once. A longer one, and what brings files, takes a thread."""
SIGNATURE = "windlass-signature"
"""Header with the signature of a message."""
KEEP_RETRY = 5.0
"""Seconds until files are kept again that the disk did not take."""
REASON_BYTES = 2_000

_log = structlog.get_logger("windlass.bus")

Hear = Callable[[Sequence[SpecMessage]], Awaitable[Sequence[Receipt]]]
"""Writes messages down, durably."""


class SpecIntake:
    """Consumes the queue ``windlass.specs``."""

    def __init__(
        self, reader: MessageReader, hear: Hear, install: str, metrics: BusMetrics
    ) -> None:
        self._reader = reader
        self._hear = hear
        self._install = install
        self._metrics = metrics

    async def serve(self, session: Session) -> None:
        """Take messages from this session for as long as it lasts."""
        channel = await session.channel(prefetch=PREFETCH)
        dead = await session.exchange(channel, DEAD_EXCHANGE)
        await session.exchange(channel, SPECS_EXCHANGE)
        await session.queue(DEAD_QUEUE)
        await session.queue(SPECS_QUEUE)
        arrived: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await session.consume(channel, SPECS, arrived.put)
        session.ready()
        while True:
            batch = [await arrived.get()]
            while not arrived.empty():
                batch.append(arrived.get_nowait())
            session.under_way = len(batch)
            await self._take(batch, channel, dead)
            session.under_way = 0

    async def _take(
        self,
        batch: Sequence[AbstractIncomingMessage],
        channel: AbstractChannel,
        dead: AbstractExchange,
    ) -> None:
        messages = await self._read([_delivery_of(message) for message in batch])
        receipts = await self._hear(messages)
        pairs = list(zip(batch, receipts, strict=True))
        async with asyncio.timeout(CALL):
            await asyncio.gather(*(self._bury(m, r, dead) for m, r in pairs if r.faults))
            await asyncio.gather(*(self._answer(m, r, channel) for m, r in pairs if m.reply_to))
            await batch[-1].ack(multiple=True)
        for receipt in receipts:
            self._metrics.consumed.labels(receipt.verdict).inc()

    async def _read(self, deliveries: Sequence[Delivery]) -> list[SpecMessage]:
        """Read all, in a thread if it is much; waits for as long as files cannot be kept."""

        def read() -> list[SpecMessage]:
            return [self._reader.read(delivery) for delivery in deliveries]

        at_once = len(deliveries) == 1 and _is_small(deliveries[0])
        while True:
            try:
                return read() if at_once else await asyncio.to_thread(read)
            except SourceUnavailableError as error:
                _log.error("messages wait", error=str(error))
                await asyncio.sleep(KEEP_RETRY)

    async def _bury(
        self, message: AbstractIncomingMessage, receipt: Receipt, dead: AbstractExchange
    ) -> None:
        """Keep a copy of what was refused, with the reason, for people to look at."""
        faults = [str(fault) for fault in receipt.faults]
        copy = Message(
            message.body,
            headers={
                **message.headers,
                "windlass-reason": str(receipt.reason or ""),
                "windlass-faults": json.dumps(faults)[:REASON_BYTES],
                "windlass-routing-key": message.routing_key or "",
            },
            content_type=message.content_type,
            message_id=message.message_id,
            delivery_mode=DeliveryMode.PERSISTENT,
        )
        await dead.publish(copy, message.routing_key or "", mandatory=False, timeout=CALL)
        self._metrics.dead_lettered.inc()
        _log.warning("message refused", reason=receipt.reason, faults=faults[:3])

    async def _answer(
        self, message: AbstractIncomingMessage, receipt: Receipt, channel: AbstractChannel
    ) -> None:
        """Tell the publisher, if that wants to know. A publisher that is gone is no trouble."""
        if not message.reply_to or not is_answerable(message.reply_to):
            return
        answer = Message(
            answer_body(receipt, self._install, message.message_id),
            content_type=CONTENT_TYPE,
            correlation_id=message.correlation_id or message.message_id,
        )
        try:
            await channel.default_exchange.publish(
                answer, message.reply_to, mandatory=False, timeout=CALL
            )
        except aio_pika.exceptions.DeliveryError:
            _log.info("a publisher's reply queue is full", queue=message.reply_to)


def _is_small(delivery: Delivery) -> bool:
    """Whether reading it takes less than handing it to a thread, and touches no disk."""
    return len(delivery.body) <= SMALL and b'"files"' not in delivery.body


def _delivery_of(message: AbstractIncomingMessage) -> Delivery:
    signature = message.headers.get(SIGNATURE, "")
    return Delivery(
        body=message.body,
        routing_key=message.routing_key or "",
        signature=signature if isinstance(signature, str) else "",
        user=message.user_id or "",
    )
