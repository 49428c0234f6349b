"""Publish specs: the other end of the intake, for the command line and for Python programs.

Needs no daemon: a message waits in the queue until one takes it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import cast, get_args

import aio_pika
from aio_pika import DeliveryMode, Message
from aio_pika.abc import AbstractChannel, AbstractExchange, AbstractIncomingMessage
from aio_pika.exceptions import AMQPError
from pydantic import JsonValue

from windlass.bus.address import Address
from windlass.bus.answers import Answer, read_answer
from windlass.bus.events import CONTENT_TYPE
from windlass.bus.intake import SIGNATURE
from windlass.bus.link import CALL, explain, hush
from windlass.bus.opening import open_connection
from windlass.bus.signing import Algorithm, Signer
from windlass.bus.topology import SPECS
from windlass.sources.envelope import DELETE, ELSEWHERE, MAX_TRAVELLING, PUT
from windlass.sources.messages import routing_key_of
from windlass_schemas import Key

DEFAULT_SOURCE = "windlass-publish"
SOURCE_VARIABLE = "WINDLASS_PUBLISH_SOURCE"
KEY_VARIABLE = "WINDLASS_PUBLISH_KEY"
ALGORITHM_VARIABLE = "WINDLASS_PUBLISH_ALGORITHM"
_REPLIES = "amq.rabbitmq.reply-to"


class PublishError(Exception):
    """Nothing was published, or nobody knows. The message says why and what to do."""


@dataclass(frozen=True)
class Said:
    """What one message says: a document with its files, or a deletion."""

    key: Key
    document: Mapping[str, JsonValue] | str | None
    """JSON, or YAML as text; None deletes."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """By path beside the document."""


def source_from_environment() -> str:
    """Who publishes, unless it is said otherwise."""
    return os.environ.get(SOURCE_VARIABLE) or DEFAULT_SOURCE


def signer_from_environment(source: str) -> Signer | None:
    """What ``WINDLASS_PUBLISH_KEY`` says; None when it is not set. Raises PublishError."""
    key = os.environ.get(KEY_VARIABLE, "")
    if not key:
        return None
    if not key.startswith(("env:", "file:")):
        raise PublishError(f"{KEY_VARIABLE} holds a key itself; let it say env:NAME or file:PATH")
    algorithm = os.environ.get(ALGORITHM_VARIABLE, "HS256")
    if algorithm not in get_args(Algorithm):
        known = ", ".join(get_args(Algorithm))
        raise PublishError(f"{ALGORITHM_VARIABLE} is {algorithm!r}; write one of {known}")
    return Signer(source, cast("Algorithm", algorithm), key)


class Publisher:
    """Publishes through one connection. ``connected`` makes one."""

    def __init__(
        self,
        channel: AbstractChannel,
        exchange: AbstractExchange,
        source: str,
        signer: Signer | None,
    ) -> None:
        self._channel = channel
        self._exchange = exchange
        self._source = source
        self._signer = signer
        self._answers: dict[str, asyncio.Future[Answer]] = {}

    async def publish(self, said: Said, revision: int | None = None, id_: str = "") -> str:
        """Publish one message; its id. Returns when the broker has it. Raises PublishError."""
        id_ = id_ or uuid.uuid4().hex
        body = event_body(said, self._source, id_, revision or new_revision())
        self._answers[id_] = asyncio.get_running_loop().create_future()
        message = Message(
            body,
            content_type=CONTENT_TYPE,
            message_id=id_,
            correlation_id=id_,
            reply_to=_REPLIES,
            delivery_mode=DeliveryMode.PERSISTENT,
            headers={} if self._signer is None else {SIGNATURE: self._signer.sign(body)},
        )
        try:
            await self._exchange.publish(message, routing_key_of(said.key), timeout=CALL)
        except (AMQPError, OSError, TimeoutError, RuntimeError) as error:
            raise PublishError(_why_not(error)) from error
        return id_

    async def answer(self, id_: str, timeout: float) -> Answer:
        """What a daemon says of a message. Raises TimeoutError after so many seconds."""
        async with asyncio.timeout(timeout):
            return await self._answers[id_]

    async def listen(self) -> None:
        """Take answers from now on."""
        queue = await self._channel.get_queue(_REPLIES, ensure=False)
        await queue.consume(self._answered, no_ack=True, timeout=CALL)

    async def _answered(self, message: AbstractIncomingMessage) -> None:
        waiting = self._answers.get(message.correlation_id or "")
        if waiting is not None and not waiting.done():
            try:
                waiting.set_result(read_answer(message.body))
            except ValueError as error:
                waiting.set_exception(PublishError(str(error)))


@asynccontextmanager
async def connected(
    address: Address, source: str, signer: Signer | None = None
) -> AsyncIterator[Publisher]:
    """A publisher while inside. Raises PublishError."""
    hush()
    try:
        connection = await open_connection(address, CALL)
    except (AMQPError, OSError, TimeoutError, RuntimeError) as error:
        raise PublishError(explain(error, address)) from error
    async with connection:
        channel = await connection.channel(on_return_raises=True)
        exchange = await channel.get_exchange(SPECS, ensure=False)
        publisher = Publisher(channel, exchange, source, signer)
        await publisher.listen()
        yield publisher


def new_revision() -> int:
    """Microseconds since 1970: rises by itself, also from one publisher's host to the next."""
    return time.time_ns() // 1000


def event_body(said: Said, source: str, id_: str, revision: int) -> bytes:
    """The message as a CloudEvent in structured mode. Raises PublishError."""
    event: dict[str, JsonValue] = {
        "specversion": "1.0",
        "id": id_,
        "source": source,
        "type": DELETE if said.document is None else PUT,
        "subject": str(said.key),
        "time": datetime.now(UTC).isoformat(),
        "revision": str(revision),
    }
    if said.document is not None:
        document = said.document if isinstance(said.document, str) else dict(said.document)
        event["datacontenttype"] = "application/json"
        event["data"] = {"document": document, "files": _files(said)} if said.files else document
    return json.dumps(event, ensure_ascii=False).encode()


def _files(said: Said) -> dict[str, JsonValue]:
    size = sum(map(len, said.files.values()))
    if size > MAX_TRAVELLING:
        largest = max(said.files, key=lambda path: len(said.files[path]))
        raise PublishError(
            f"{said.key.short} names files of {size / (1 << 20):.1f} MiB, {largest} the largest,"
            f" and at most {MAX_TRAVELLING >> 20} MiB travel with a message; {ELSEWHERE}"
        )
    return {path: _content(content) for path, content in said.files.items()}


def _content(content: bytes) -> JsonValue:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def _why_not(error: Exception) -> str:
    said = str(error) or type(error).__name__
    if isinstance(error, aio_pika.exceptions.PublishError) or "NOT_FOUND" in said:
        return (
            f"nobody takes specs from this broker ({SPECS} has no queue); start a daemon with"
            " WINDLASS_AMQP_URL once, it makes the queue"
        )
    if isinstance(error, aio_pika.exceptions.DeliveryError):
        return "the broker did not take the message; look at its disk and memory, then try again"
    if "ACCESS_REFUSED" in said:
        return f"the broker does not let this user publish there ({said}); ask for the permission"
    return f"the broker was lost ({said}), and nobody knows whether it has the message; try again"
