"""What people ask the store for, by a command or the API, beside declaring."""

from __future__ import annotations

from dataclasses import dataclass

from windlass_schemas import Key


@dataclass(frozen=True)
class Delete:
    """Remove an object whose document is gone: the answer to ``confirm`` and ``never``.

    Refused while a source still declares the object: the source would declare it again.
    """

    key: Key
    author: str


@dataclass(frozen=True)
class SuspendObject:
    """Stop acting on the object until it is resumed."""

    key: Key
    reason: str
    author: str


@dataclass(frozen=True)
class ResumeObject:
    """Act on the object again."""

    key: Key
    author: str


@dataclass(frozen=True)
class SyncObject:
    """Look at the object now; a failed one gets another try. Answered in ``status.handledSync``."""

    key: Key
    token: str
    author: str


@dataclass(frozen=True)
class Approve:
    """Let a revision prune what the breaker held back."""

    revision: str
    author: str


@dataclass(frozen=True)
class Transfer:
    """Let another source that declares the key too own it from now on. What runs stays as it is,
    until what the new owner declares differs."""

    key: Key
    to: str
    """The source's id."""
    author: str


Request = Transfer | Delete | SuspendObject | ResumeObject | SyncObject | Approve
