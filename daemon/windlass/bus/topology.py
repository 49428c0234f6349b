"""The names on the broker, and how each thing is declared. Safe to declare again at any time.

Nothing of it is made by hand: whoever connects declares what it needs. A queue that an operator
has declared with other arguments is used as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aio_pika import ExchangeType

SPECS = "windlass.specs"
"""Exchange (topic) and queue (quorum) of spec messages."""
DEAD = "windlass.dead"
"""Exchange (fanout) and queue (quorum, bounded) of messages that were refused."""
EVENTS = "windlass.events"
"""Exchange (topic) of status events. Subscribers bring their own queues."""
REQUESTS = "windlass.requests"
"""Exchange (direct) and queue of questions to the daemon: snapshots."""
SNAPSHOT = "snapshot"
"""Routing key of a question for a snapshot."""
INFER = "windlass.infer"
"""Exchange (direct) of inference requests; the routing key is the Deployment."""

PREFIX = "windlass."
THEIRS = ("windlass.reply.", "windlass.subscriber.")
"""Named queues of publishers and subscribers start so. Nothing else of ours is ever replied to."""

DELIVERY_LIMIT = 20
"""Deliveries after which the broker itself dead-letters what kills every daemon that takes it."""
DEAD_LIMIT = 10_000
"""Refused messages that are kept; the oldest go."""
REQUESTS_LIMIT = 1_000


@dataclass(frozen=True)
class Exchange:
    """An exchange of ours, durable."""

    name: str
    type: ExchangeType


@dataclass(frozen=True)
class Queue:
    """A durable queue of ours and its binding."""

    name: str
    exchange: str
    routing_key: str
    arguments: Mapping[str, str | int] = field(default_factory=dict)


SPECS_EXCHANGE = Exchange(SPECS, ExchangeType.TOPIC)
DEAD_EXCHANGE = Exchange(DEAD, ExchangeType.FANOUT)
EVENTS_EXCHANGE = Exchange(EVENTS, ExchangeType.TOPIC)
REQUESTS_EXCHANGE = Exchange(REQUESTS, ExchangeType.DIRECT)
INFER_EXCHANGE = Exchange(INFER, ExchangeType.DIRECT)

SPECS_QUEUE = Queue(
    SPECS,
    SPECS,
    "#",
    {
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-dead-letter-exchange": DEAD,
    },
)
DEAD_QUEUE = Queue(
    DEAD,
    DEAD,
    "",
    {"x-queue-type": "quorum", "x-max-length": DEAD_LIMIT, "x-overflow": "drop-head"},
)
REQUESTS_QUEUE = Queue(
    REQUESTS,
    REQUESTS,
    SNAPSHOT,
    {"x-queue-type": "quorum", "x-max-length": REQUESTS_LIMIT, "x-overflow": "reject-publish"},
)


def is_answerable(reply_to: str) -> bool:
    """Whether an answer may go to that queue: nobody may have us write into our own queues."""
    return not reply_to.startswith(PREFIX) or reply_to.startswith(THEIRS)
