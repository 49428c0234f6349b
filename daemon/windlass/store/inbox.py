"""The inbox port: what single messages declare, beside whole snapshots (hop 2).

A source of messages says one thing at a time: put this, delete that. What it has said last of each
key is kept, so that the state follows from what was said and not from the order of arrival.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from windlass.store.base import Document, Fault
from windlass_schemas import Key, Reason

MESSAGE_SOURCES = "amqp:"
"""Ids of sources that speak in messages start so; the CloudEvent's own ``source`` follows."""

Verdict = Literal["accepted", "unchanged", "deleting", "duplicate", "stale", "conflict", "refused"]
"""What came of a message. ``unchanged``: the same is declared already. ``duplicate``: that very
message was taken before. ``stale``: a newer revision was. The last two wrote nothing."""


@dataclass(frozen=True)
class SpecMessage:
    """One message as it was read: a document, a deletion, or what is wrong with it."""

    source: str
    """``amqp:<source>``; what cannot be read or trusted belongs to nobody: ``amqp:``."""
    id: str
    """Its own id, unique in its source; a digest of the body when that cannot be read."""
    revision: int
    """Rises with each change of one key; 0 when it cannot be read."""
    key: Key | None
    document: Document | None
    """None: a deletion, or refused."""
    author: str
    faults: tuple[Fault, ...] = ()
    """When there is any, the message is refused."""
    reason: Reason = Reason.INVALID_SPEC
    """Why it is refused."""

    @classmethod
    def put(
        cls, source: str, id_: str, revision: int, document: Document, author: str
    ) -> SpecMessage:
        """A message that declares a document."""
        return cls(source, id_, revision, document.key, document, author)

    @property
    def counts(self) -> bool:
        """Whether its faults may be told of the object that it speaks of."""
        return self.source != MESSAGE_SOURCES and self.revision > 0 and self.key is not None


@dataclass(frozen=True)
class Receipt:
    """The answer to one message."""

    verdict: Verdict
    key: Key | None
    uid: str = ""
    generation: int = 0
    message: str = ""
    """In words, what is to be done about it."""
    faults: tuple[Fault, ...] = ()
    reason: Reason | None = None
    """Why it was refused, or ``SourceConflict``."""

    @property
    def is_due(self) -> bool:
        """Whether the object must be looked at.

        A duplicate too: whoever took it first may have been stopped before it could say so.
        """
        return self.verdict != "stale" and self.key is not None


class Inbox(Protocol):
    """Takes what message sources declare."""

    @abstractmethod
    async def receive(self, messages: Sequence[SpecMessage], now: datetime) -> Sequence[Receipt]:
        """Take messages over, in their order, all in one transaction; one receipt each.

        Each message is taken once, whatever is delivered again. No crash of the daemon undoes that
        after the return; a power cut may, until ``durable`` has returned. Raises StoreError; then
        nothing was taken.
        """

    @abstractmethod
    async def durable(self) -> None:
        """Return when nothing can undo any more what was received. Raises StoreError."""

    @abstractmethod
    async def retake(self, key: Key, source: str, now: datetime) -> tuple[Key, ...]:
        """Nobody owns the key now: put what that message source has said of it last into force.

        The keys to look at now. Raises StoreError.
        """
