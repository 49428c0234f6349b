"""Follow the events on the broker: what any subscriber can do, for ``windlass events --amqp``."""

from __future__ import annotations

from collections.abc import Callable

from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPError

from windlass.api.views import LoggedEvent
from windlass.bus.address import Address
from windlass.bus.link import Link, Session
from windlass.bus.topology import EVENTS
from windlass_schemas import CloudEvent, Key


class SubscribeError(Exception):
    """The events cannot be followed. The message says why and what to do."""


async def follow(
    address: Address,
    key: Key | None,
    show: Callable[[LoggedEvent], None],
    tell: Callable[[str], None],
) -> None:
    """Give every new event to ``show``, of one object or of all, until cancelled.

    A lost broker is waited for, which ``tell`` says; what happens meanwhile is not seen. Raises
    SubscribeError when the events are not there to be followed at all.
    """
    pattern = "#" if key is None else ".".join(("windlass", *key, "#")).lower()

    async def take(message: AbstractIncomingMessage) -> None:
        show(LoggedEvent(position=0, event=CloudEvent.model_validate_json(message.body)))

    async def serve(session: Session) -> None:
        channel = await session.channel()
        try:
            queue = await channel.declare_queue(exclusive=True)
            await queue.bind(EVENTS, pattern)
        except AMQPError as error:
            raise SubscribeError(
                f"{address} gives no events ({error}); start a daemon on it once, or ask for the"
                " permission to subscribe"
            ) from error
        await queue.consume(take, no_ack=True)
        session.ready()
        await session.until_lost()

    link = Link("watch", address, serve, (SubscribeError,))
    told = [""]

    def say(state: object) -> None:
        message = link.state.message
        if not link.state.up and message != told[0]:
            tell(message)
        told[0] = message

    link.on_change = say
    await link.run()
