"""A connection to the broker that watches itself: lost, it is made anew with everything on it.

The library's own recovery is not used. A link connects, gives a fresh ``Session`` to its owner,
and ends it at the first sign of loss: connection or channel closed, consumer cancelled, heartbeats
missed, a probe unanswered, messages that wait while none comes. Then it waits, longer each time,
and begins again. One link for each purpose, so that a publisher that the broker holds up stops no
consumer. For every process that speaks AMQP; beside the eight hops.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import aio_pika
import structlog
from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractExchange,
    AbstractIncomingMessage,
    AbstractQueue,
)
from aio_pika.exceptions import AMQPError

from windlass.bus.address import Address
from windlass.bus.opening import open_connection
from windlass.bus.topology import Exchange, Queue

CALL = 20.0
"""Seconds that one answer of the broker may take."""
PROBE = 15.0
"""Seconds between two probes."""
FIRST_WAIT = 0.2
LONGEST_WAIT = 30.0
SETTLED = 10.0
"""Seconds that a session must have lasted for the next wait to be short again."""

ALARM = (
    "the broker takes no messages: it is low on memory or disk; look at rabbitmqctl status, what is"
    " to be said waits"
)
_GLANCE = 0.05

_log = structlog.get_logger("windlass.bus")

Take = Callable[[AbstractIncomingMessage], Awaitable[None]]


class LinkLostError(OSError):
    """The session is over. Whatever was not confirmed may or may not have happened."""


@dataclass(frozen=True)
class LinkState:
    """How a link is now."""

    up: bool
    message: str
    """What is wrong and what to do, when it is not up."""


class Session:
    """One connection, from its beginning to the first sign of its loss."""

    def __init__(
        self,
        connection: AbstractConnection,
        on_ready: Callable[[], None],
        on_held_up: Callable[[bool], None],
    ) -> None:
        self._connection = connection
        self._on_ready = on_ready
        self._on_held_up = on_held_up
        self._held_up = False
        loop = asyncio.get_running_loop()
        self._lost: asyncio.Future[str] = loop.create_future()
        self._queues: dict[str, int] = {}
        """What is consumed, and how many messages it has given so far."""
        self._tags: dict[str, str] = {}
        self._idle_at: dict[str, int] = {}
        self._probe_channel: AbstractChannel | None = None
        self.under_way = 0
        """Messages that were given and are not acknowledged yet, by the owner's count."""
        connection.close_callbacks.add(self._closed)

    def ready(self) -> None:
        """Everything is declared and consumed: the owner is at work."""
        self._on_ready()

    def lose(self, why: str) -> None:
        """End the session."""
        if not self._lost.done():
            self._lost.set_result(why)

    def _closed(self, _sender: object, error: BaseException | None) -> None:
        self.lose(str(error) if error else "the broker closed it")

    async def held_up(self) -> bool:
        """Whether the broker takes nothing now: low on memory or disk, it stops its publishers.

        Raises LinkLostError when there is no connection any more.
        """
        transport = self._connection.transport
        if transport is None:
            raise LinkLostError("the connection is closed")
        now = False
        try:
            async with asyncio.timeout(_GLANCE):
                await transport.connection.ready()
        except TimeoutError:
            now = True
        if now != self._held_up:
            self._held_up = now
            self._on_held_up(now)
        return now

    async def channel(self, *, prefetch: int = 0, returns: bool = False) -> AbstractChannel:
        """A channel with publisher confirms, whose loss is the session's."""
        async with asyncio.timeout(CALL):
            channel = await self._connection.channel(on_return_raises=returns)
            channel.close_callbacks.add(self._closed)
            underlay = await channel.get_underlay_channel()
            underlay.on_consumer_cancel_callbacks.add(
                lambda _: self.lose("the broker cancelled the consumer; its queue was deleted")
            )
            if prefetch:
                await channel.set_qos(prefetch_count=prefetch)
        return channel

    async def exchange(self, channel: AbstractChannel, exchange: Exchange) -> AbstractExchange:
        """Declare an exchange, or use it where the user may not declare."""
        async with asyncio.timeout(CALL):
            return await channel.declare_exchange(exchange.name, exchange.type, durable=True)

    async def queue(self, queue: Queue) -> None:
        """Declare a queue and its binding on a channel of their own: a refusal closes it.

        A queue that is there with other arguments is used as it is.
        """
        async with asyncio.timeout(CALL):
            trial = await self._connection.channel()
            try:
                declared = await trial.declare_queue(
                    queue.name, durable=True, arguments=dict(queue.arguments)
                )
            except aio_pika.exceptions.ChannelPreconditionFailed as error:
                _log.warning("queue is used as it was declared", queue=queue.name, why=str(error))
                trial = await self._connection.channel()
                declared = await trial.declare_queue(queue.name, passive=True)
            await declared.bind(queue.exchange, queue.routing_key)
            await trial.close()

    async def consume(self, channel: AbstractChannel, name: str, take: Take) -> AbstractQueue:
        """Have every message of a queue given to ``take``, and watch that they come."""

        async def taken(message: AbstractIncomingMessage) -> None:
            if name in self._queues:
                self._queues[name] += 1
            await take(message)

        self._queues[name] = 0
        async with asyncio.timeout(CALL):
            queue = await channel.get_queue(name, ensure=False)
            self._tags[name] = await queue.consume(taken)
        return queue

    async def leave(self, queue: AbstractQueue) -> None:
        """Take nothing more from a queue."""
        self._queues.pop(queue.name, None)
        async with asyncio.timeout(CALL):
            await queue.cancel(self._tags.pop(queue.name))

    async def until_lost(self) -> None:
        """Watch, without end. Raises LinkLostError."""
        while True:
            done, _ = await asyncio.wait([self._lost], timeout=PROBE)
            if not done and not await self.held_up():  # it would not even read the question
                await self._probe()
            if self._lost.done():
                raise LinkLostError(self._lost.result())

    async def _probe(self) -> None:
        """Ask the broker after what is consumed. Silence, and messages that only lie, are loss."""
        try:
            async with asyncio.timeout(CALL):
                if self._probe_channel is None:
                    self._probe_channel = await self._connection.channel()
                for name in list(self._queues):
                    found = await self._probe_channel.declare_queue(name, passive=True)
                    self._judge(name, found.declaration_result)
        except TimeoutError:
            self.lose(f"the broker did not answer within {CALL:g} s")
        except (AMQPError, OSError, RuntimeError) as error:
            self.lose(f"the broker refused the probe: {error}")

    def _judge(self, name: str, found: object) -> None:
        if name not in self._queues:
            return
        consumers = getattr(found, "consumer_count", None) or 0
        waiting = getattr(found, "message_count", None) or 0
        if not consumers:
            self.lose(f"nobody consumes {name} any more")
        given = self._queues[name]
        if not waiting or self.under_way:
            self._idle_at.pop(name, None)
        elif self._idle_at.get(name) == given:
            self.lose(f"{waiting} messages lie in {name} and none comes")
        else:
            self._idle_at[name] = given


class Link:
    """Keeps one session alive for its owner."""

    def __init__(
        self,
        name: str,
        address: Address,
        serve: Callable[[Session], Awaitable[None]],
        fatal: tuple[type[Exception], ...] = (),
    ) -> None:
        """``serve`` works until it raises; what is ``fatal`` ends the link instead of a session."""
        self.name = name
        self.state = LinkState(False, f"{name}: not connected to {address} yet")
        self.connects = 0
        """Sessions that became ready so far."""
        self.on_change: Callable[[LinkState], None] = lambda _: None
        """Told of each new state."""
        self._address = address
        self._serve = serve
        self._fatal = fatal
        hush()

    async def run(self) -> None:
        """Stay connected until cancelled. Raises nothing but what is fatal."""
        loop = asyncio.get_running_loop()
        wait = FIRST_WAIT
        while True:
            began = loop.time()
            try:
                await self._session()
            except Exception as error:  # whatever the bus does, it stops nothing but itself
                cause = _first(error)
                if isinstance(cause, self._fatal):
                    raise cause from None
                self._down(cause)
            if loop.time() - began > SETTLED:
                wait = FIRST_WAIT
            await asyncio.sleep(random.uniform(wait / 2, wait))
            wait = min(wait * 2, LONGEST_WAIT)

    async def _session(self) -> None:
        async with asyncio.timeout(CALL):
            connection = await open_connection(self._address, CALL, f"windlass {self.name}")
        session = Session(connection, self._up, self._held_up)
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(session.until_lost())
                await self._serve(session)
                watch.cancel()
        finally:
            with suppress(Exception):
                async with asyncio.timeout(2):
                    await connection.close()

    def _up(self) -> None:
        self.connects += 1
        self._set(LinkState(True, f"connected to {self._address}"))
        _log.info("connected to the broker", link=self.name, broker=str(self._address))

    def _held_up(self, held_up: bool) -> None:
        if held_up:
            _log.warning("the broker takes no messages", link=self.name, error=ALARM)
        self._set(LinkState(not held_up, ALARM if held_up else f"connected to {self._address}"))

    def _set(self, state: LinkState) -> None:
        self.state = state
        self.on_change(state)

    def _down(self, error: Exception) -> None:
        message = explain(error, self._address)
        if self.state.message != message:
            _log.warning("not connected to the broker", link=self.name, error=message)
        self._set(LinkState(False, message))
        if not isinstance(error, AMQPError | OSError | RuntimeError):
            _log.error("the link broke unexpectedly", link=self.name, exc_info=error)


def hush() -> None:
    """What the library has to say of a lost connection is said once, by us."""
    for library in ("aiormq", "aio_pika"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)


def _first(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def explain(error: Exception, address: Address) -> str:
    """What is wrong with the way to the broker, and what to do."""
    said = str(error).strip() or type(error).__name__
    if isinstance(error, aio_pika.exceptions.ProbableAuthenticationError) or "403" in said[:12]:
        return f"{address} refuses the user ({said}); mend the user name or its password"
    if "ACCESS_REFUSED" in said:
        return (
            f"{address} refuses access ({said}); give the user the permissions of"
            " docker/rabbitmq/definitions.json"
        )
    if isinstance(error, ssl.SSLError) or "CERTIFICATE" in said:
        return f"{address} cannot be trusted ({said}); set WINDLASS_AMQP_CA to its authority's file"
    if isinstance(error, TimeoutError):
        return f"{address} does not answer; look at the broker and the way to it"
    if "NOT_ALLOWED" in said or "Connection.OpenOk" in said:
        return f"{address} has no such virtual host for this user; mend WINDLASS_AMQP_URL"
    return f"{address} is away ({said}); waiting for it"
