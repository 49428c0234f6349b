"""From the bytes of a message to what it declares: the strict loader, for messages (hop 1).

The document goes through the very loader that reads folders and commits, so that a message is
refused with the same faults, and taken with the same digest, as the file would be.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Protocol

from windlass.sources.envelope import (
    Envelope,
    EnvelopeError,
    address_of,
    open_envelope,
    read_event,
)
from windlass.sources.loader import Check, Loader, no_check
from windlass.sources.messagetree import DOCUMENT, MessageTree
from windlass.sources.namedfiles import Keep
from windlass.store.base import Document, Fault
from windlass.store.inbox import MESSAGE_SOURCES, SpecMessage
from windlass_schemas import KINDS, Key, Reason


@dataclass(frozen=True)
class Delivery:
    """A message as the bus gives it."""

    body: bytes
    routing_key: str
    signature: str = ""
    """A JSON Web Token over the body; empty when it is not signed."""
    user: str = ""
    """Who sent it, when the broker vouches for that."""


class UntrustedError(Exception):
    """The publisher may not say this. The message says what to do."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Trust(Protocol):
    """Who may declare what."""

    @abstractmethod
    def check_signature(self, delivery: Delivery, source: str) -> None:
        """That the source itself says it. Raises UntrustedError."""

    @abstractmethod
    def check_right(self, source: str, key: Key) -> None:
        """That the source may speak of that object. Raises UntrustedError."""


def routing_key_of(key: Key) -> str:
    """``windlass.<kind>.<namespace>.<name>``: where messages about an object go."""
    return ".".join(("windlass", *key)).lower()


class MessageReader:
    """Reads messages. Blocking: for use in a thread."""

    def __init__(self, keep: Keep, check: Check = no_check, trust: Trust | None = None) -> None:
        self._keep = keep
        self._check = check
        self._trust = trust

    def read(self, delivery: Delivery) -> SpecMessage:
        """What a message declares, or what is wrong with it.

        Raises SourceUnavailableError when its files cannot be kept now; then it must come again.
        """
        nobody = SpecMessage(MESSAGE_SOURCES, _digest(delivery), 0, None, None, delivery.user)
        known = nobody
        try:
            event = read_event(delivery.body)
            address = address_of(event)
            if self._trust is not None:
                self._trust.check_signature(delivery, address.source)
            source = MESSAGE_SOURCES + address.source
            known = SpecMessage(source, address.id, address.revision, None, None, address.source)
            envelope = open_envelope(event, address)
            return self._read(delivery, envelope)
        except UntrustedError as error:
            return _refused(nobody, _fault("", str(error)), reason=error.reason)
        except EnvelopeError as error:
            return _refused(known, _fault(error.field, str(error)))

    def _read(self, delivery: Delivery, envelope: Envelope) -> SpecMessage:
        said = SpecMessage(
            source=MESSAGE_SOURCES + envelope.source,
            id=envelope.id,
            revision=envelope.revision,
            key=envelope.subject,
            document=None,
            author=delivery.user or envelope.author,
        )
        document: Document | None = None
        faults: tuple[Fault, ...] = ()
        if not envelope.deletes:
            document, faults = self._load(envelope)
        key = document.key if document else _key_of(faults) or envelope.subject
        if key is not None and self._trust is not None:
            self._trust.check_right(envelope.source, key)
        said = SpecMessage(said.source, said.id, said.revision, key, document, said.author)
        faults = faults or tuple(_misdirected(key, delivery.routing_key, envelope))
        return _refused(said, *faults) if faults else said

    def _load(self, envelope: Envelope) -> tuple[Document | None, tuple[Fault, ...]]:
        loader = Loader(self._keep, self._check, only=DOCUMENT)
        loaded = loader.load(MessageTree(envelope.document, envelope.files))
        found = loaded.faults
        if not envelope.has_lines:
            found = tuple(replace(fault, line=1, column=1) for fault in found)
        if len(loaded.documents) > 1:
            message = "a message holds one document; send each one by itself"
            return None, (_fault("data", message), *found)
        if found or not loaded.documents:
            return None, found or (_fault("data", "holds no document"),)
        return loaded.documents[0], ()


def _misdirected(key: Key | None, routing_key: str, envelope: Envelope) -> list[Fault]:
    """A broker's rights go by the routing key: it must speak of the same object."""
    if key is None or key.kind not in KINDS:
        kinds = ", ".join(KINDS)
        return [_fault("subject", f"names no kind that there is; write one of: {kinds}")]
    if envelope.subject not in (None, key):
        message = f"is {envelope.subject}, and the document declares {key}; make them one"
        return [_fault("subject", message, key)]
    if routing_key != routing_key_of(key):
        message = f"the routing key is {routing_key!r}; send it with {routing_key_of(key)}"
        return [_fault("", message, key)]
    return []


def _key_of(faults: tuple[Fault, ...]) -> Key | None:
    return next((fault.key for fault in faults if fault.key is not None), None)


def _fault(field: str, message: str, key: Key | None = None) -> Fault:
    return Fault(DOCUMENT, 1, 1, field, message, key)


def _refused(
    said: SpecMessage, *faults: Fault, reason: Reason = Reason.INVALID_SPEC
) -> SpecMessage:
    return SpecMessage(
        said.source, said.id, said.revision, said.key, None, said.author, faults, reason
    )


def _digest(delivery: Delivery) -> str:
    return "sha256:" + hashlib.sha256(delivery.body).hexdigest()
