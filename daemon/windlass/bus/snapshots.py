"""Snapshots for subscribers that come late: how every object is now, sent to the one who asks.

Beside hop 8. A subscriber binds its queue to the events first, asks then, and drops each event
whose ``seq`` is not above the one in the snapshot: so it misses nothing and counts nothing twice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import aio_pika
import structlog
from aio_pika import Message
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from pydantic import JsonValue

from windlass.bus.events import CONTENT_TYPE
from windlass.bus.link import CALL, Session
from windlass.bus.topology import REQUESTS, REQUESTS_EXCHANGE, REQUESTS_QUEUE, is_answerable
from windlass.clock import utc_now
from windlass.metrics import BusMetrics
from windlass.store.base import Object, Store, StoreError

SNAPSHOT_EVENT = "windlass.object.snapshot.v1"
"""How one object is now."""
END_EVENT = "windlass.snapshot.end.v1"
"""The last message of a snapshot, with the number of objects in it; or why there is none."""
AT_ONCE = 200
PREFETCH = 4

_log = structlog.get_logger("windlass.bus")


class Snapshots:
    """Answers what comes on the queue ``windlass.requests``."""

    def __init__(self, store: Store, metrics: BusMetrics) -> None:
        self._store = store
        self._metrics = metrics

    async def serve(self, session: Session) -> None:
        """Answer through this session for as long as it lasts."""
        channel = await session.channel(prefetch=PREFETCH, returns=True)
        await session.exchange(channel, REQUESTS_EXCHANGE)
        await session.queue(REQUESTS_QUEUE)
        asked: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await session.consume(channel, REQUESTS, asked.put)
        session.ready()
        while True:
            message = await asked.get()
            session.under_way = 1
            # First, so that a question that cannot be answered is not asked again of the next one.
            await message.ack()
            await self._answer(message, channel)
            session.under_way = 0

    async def _answer(self, message: AbstractIncomingMessage, channel: AbstractChannel) -> None:
        if not message.reply_to or not is_answerable(message.reply_to):
            _log.warning("a snapshot was asked for without a queue to send it to")
            return
        try:
            bodies = await self._bodies(message.body)
        except (StoreError, ValueError) as error:
            bodies = [self._end(0, str(error))]
        try:
            for some in _portions(bodies):
                async with asyncio.timeout(CALL):
                    await asyncio.gather(*(_send(channel, message, body) for body in some))
        except aio_pika.exceptions.DeliveryError as error:
            _log.info("who asked for a snapshot takes it no more", why=str(error))
            return
        self._metrics.snapshots.inc()

    async def _bodies(self, question: bytes) -> list[bytes]:
        """Raises StoreError, and ValueError for a question that nobody understands."""
        kind, namespace, name = _filters(question)
        objects = await self._store.list(kind, namespace)
        wanted = [found for found in objects if name in (None, found.key.name)]
        bodies = [self._body(found) for found in wanted]
        return [*bodies, self._end(len(bodies), "")]

    def _body(self, found: Object) -> bytes:
        status = found.status
        data: dict[str, JsonValue] = {
            "uid": found.uid,
            "seq": found.seq,
            "generation": found.generation,
            "observed_generation": status.observed_generation,
            "sync": status.sync,
            "health": status.health,
            "conditions": [c.model_dump(mode="json") for c in status.conditions],
            "revision": found.revision,
            "source": found.source,
            "deleting": found.deleting_since is not None,
            "url": status.url,
        }
        return self._event(f"{found.uid}:{found.seq}:snapshot", SNAPSHOT_EVENT, data, found)

    def _end(self, objects: int, error: str) -> bytes:
        id_ = f"snapshot:{utc_now().isoformat()}"
        return self._event(id_, END_EVENT, {"objects": objects, "error": error})

    def _event(
        self, id_: str, type_: str, data: dict[str, JsonValue], about: Object | None = None
    ) -> bytes:
        event: dict[str, JsonValue] = {
            "specversion": "1.0",
            "id": id_,
            "source": f"/windlass/{self._store.install}",
            "type": type_,
            "time": utc_now().isoformat(),
            "datacontenttype": "application/json",
            "data": data,
        }
        if about is not None:
            event["subject"] = str(about.key)
        return json.dumps(event).encode()


async def _send(channel: AbstractChannel, asked: AbstractIncomingMessage, body: bytes) -> None:
    message = Message(body, content_type=CONTENT_TYPE, correlation_id=asked.correlation_id)
    assert asked.reply_to is not None
    await channel.default_exchange.publish(message, asked.reply_to, mandatory=True)


def _portions(bodies: Sequence[bytes]) -> list[Sequence[bytes]]:
    """In their order, some at a time."""
    return [bodies[at : at + AT_ONCE] for at in range(0, len(bodies), AT_ONCE)]


def _filters(question: bytes) -> tuple[str | None, str | None, str | None]:
    """Kind, namespace and name that are asked for. Raises ValueError."""
    if not question.strip():
        return None, None, None
    asked = json.loads(question)
    if isinstance(asked, dict) and isinstance(asked.get("data"), dict):
        asked = asked["data"]  # the question may be a CloudEvent too
    if not isinstance(asked, dict):
        raise ValueError("a question is empty, or an object with kind, namespace or name")  # noqa: TRY004
    values = [asked.get(name) for name in ("kind", "namespace", "name")]
    if any(value is not None and not isinstance(value, str) for value in values):
        raise ValueError("kind, namespace and name are texts")
    kind, namespace, name = values
    return kind, namespace, name
