"""Inference over the broker: the same requests as over HTTP, through the same entry.

Outside the eight hops. A request goes to the exchange ``windlass.infer`` with the Deployment for
its routing key and a queue to answer to. Each Deployment has one queue for all processes that serve
it; it goes a minute after the last of them, so that a publisher with ``mandatory`` hears at once
that nobody serves. What is more than this process takes on is refused at once and never piles up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import structlog
from aio_pika import Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue
from aio_pika.exceptions import AMQPError

from windlass.bus.address import Address
from windlass.bus.link import CALL, Link, Session
from windlass.bus.topology import INFER, INFER_EXCHANGE, Queue, is_answerable

Infer = Callable[[str, Mapping[str, str], bytes], Awaitable[tuple[int, Mapping[str, str], bytes]]]
"""Answers one request: (Deployment, headers in lower case, body) to (status, headers, body)."""

UNDER_WAY = 256
"""Requests of the broker that wait or run at once."""
LOOK = 0.5
"""Seconds between two looks at what is served."""
QUEUE_ARGUMENTS: Mapping[str, str | int] = {
    "x-expires": 60_000,
    "x-message-ttl": 60_000,
    "x-max-length": 1_000,
    "x-overflow": "reject-publish",
}

log = structlog.get_logger()


class InferenceBus:
    """Answers requests from the broker for as long as ``run`` runs."""

    def __init__(self, address: Address, infer: Infer, served: Callable[[], list[str]]) -> None:
        """``served`` gives the names of the Deployments that are here now."""
        self.link = Link("inference", address, self._serve)
        self._infer = infer
        self._served = served
        self.under_way = 0

    async def run(self) -> None:
        """Stay connected until cancelled."""
        await self.link.run()

    async def _serve(self, session: Session) -> None:
        channel = await session.channel(prefetch=2 * UNDER_WAY)
        await session.exchange(channel, INFER_EXCHANGE)
        consumed: dict[str, AbstractQueue] = {}
        async with asyncio.TaskGroup() as group:
            take = partial(self._take, group, session, channel)
            while True:
                wanted = self._served()
                for name in wanted:
                    if name not in consumed:
                        consumed[name] = await _consume(session, channel, name, take)
                for name in set(consumed) - set(wanted):
                    await session.leave(consumed.pop(name))
                if not self.link.state.up:
                    session.ready()
                await asyncio.sleep(LOOK)

    async def _take(
        self,
        group: asyncio.TaskGroup,
        session: Session,
        channel: AbstractChannel,
        message: AbstractIncomingMessage,
    ) -> None:
        if self.under_way >= UNDER_WAY:
            text = f'{{"error": "{self.under_way} requests are waiting already; try again"}}'
            headers = {"content-type": "application/json", "retry-after": "1"}
            await _reply(channel, message, 503, headers, text.encode())
            return
        self.under_way += 1
        session.under_way += 1
        # Counted from now: the broker does not say how much of it is over.
        task = group.create_task(self._answer(channel, message))
        task.add_done_callback(lambda _: self._ended(session))

    def _ended(self, session: Session) -> None:
        self.under_way -= 1
        session.under_way -= 1

    async def _answer(self, channel: AbstractChannel, message: AbstractIncomingMessage) -> None:
        headers = {str(name).lower(): str(value) for name, value in message.headers.items()}
        if message.content_type:
            headers["content-type"] = message.content_type
        expiration = message.expiration
        bound = float(expiration) if isinstance(expiration, int | float) else None
        try:
            async with asyncio.timeout(bound):
                status, told, body = await self._infer(
                    message.routing_key or "", headers, message.body
                )
        except TimeoutError:  # whoever asked has gone on without an answer
            await message.ack()
            return
        await _reply(channel, message, status, told, body)


async def _consume(
    session: Session,
    channel: AbstractChannel,
    name: str,
    take: Callable[[AbstractIncomingMessage], Awaitable[None]],
) -> AbstractQueue:
    await session.queue(Queue(f"{INFER}.{name}", INFER, name, QUEUE_ARGUMENTS))
    return await session.consume(channel, f"{INFER}.{name}", take)


async def _reply(
    channel: AbstractChannel,
    message: AbstractIncomingMessage,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
) -> None:
    """Answer, then acknowledge: a request whose process dies is answered by another one."""
    if message.reply_to and is_answerable(message.reply_to):
        others = {name: value for name, value in headers.items() if name != "content-type"}
        reply = Message(
            body,
            headers={"status": status, **others},
            content_type=headers.get("content-type"),
            correlation_id=message.correlation_id or message.message_id,
        )
        with contextlib.suppress(AMQPError):  # a queue that is gone or full misses its answer
            await channel.default_exchange.publish(
                reply, message.reply_to, mandatory=False, timeout=CALL
            )
    await message.ack()
