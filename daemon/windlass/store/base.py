"""The store port: what is remembered between passes (hops 2, 4, 7 and 8).

Tables: desired (what sources declare), object (status), external (what backends hold for us, with
intents), history (append-only), outbox (events to publish), source (last revision of each source).

Every write of a pass is guarded by the claim's token: who has lost the claim writes nothing.
What the port takes and gives is in modules of its own, and is imported from here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from windlass.store.declared import Applied, Document, Fault, Snapshot, SourceState, Written
from windlass.store.errors import (
    AwayError,
    ExternalTakenError,
    LeaseLostError,
    StoreError,
)
from windlass.store.objects import Claim, ExternalRecord, Hold, Object, RecordState
from windlass.store.outcomes import Entry, Next, Outcome
from windlass.store.requests import (
    Approve,
    Delete,
    Request,
    ResumeObject,
    SuspendObject,
    SyncObject,
    Transfer,
)
from windlass.store.roster import Roster
from windlass_schemas import CloudEvent, Key

__all__ = [
    "Applied",
    "Approve",
    "AwayError",
    "Claim",
    "Delete",
    "Document",
    "Entry",
    "ExternalRecord",
    "ExternalTakenError",
    "Fault",
    "Hold",
    "LeaseLostError",
    "Next",
    "Object",
    "Outcome",
    "RecordState",
    "Request",
    "ResumeObject",
    "Snapshot",
    "SourceState",
    "Store",
    "StoreError",
    "SuspendObject",
    "SyncObject",
    "Transfer",
    "Written",
]


class Store(Protocol):
    """State behind the daemon. One implementation per database, one contract suite for all."""

    install: str
    """Id of this installation, made when the store is made."""
    roster: Roster | None = None
    """This daemon's place among those that share the store; None where only one can use it."""

    @abstractmethod
    async def apply(self, snapshot: Snapshot, now: datetime) -> Applied:
        """Take over a source's whole set: hop 2. One transaction.

        Generation rises only when a digest changed. Prune rules and the breaker apply. Documents of
        keys that another source owns are not written.
        """

    @abstractmethod
    async def fail_source(self, source: str, error: str, now: datetime) -> None:
        """Record that a source cannot be read; empty ``error`` clears it. Nothing is pruned."""

    @abstractmethod
    async def claim(self, key: Key) -> Claim | None:
        """Read one object with the right to write it; None if there is none, or it is taken."""

    @abstractmethod
    async def intend(
        self,
        claim: Claim,
        record: ExternalRecord,
        entry: Entry | None,
        *,
        through_power_cut: bool = True,
    ) -> None:
        """Write down what is about to be done, durably. Raises LeaseLostError.

        Without ``entry`` it is another try of what the history has already. What need not be known
        after a power cut outlives the death of any process all the same.
        """

    @abstractmethod
    async def commit(self, claim: Claim, outcome: Outcome) -> None:
        """Write a pass's outcome: status, externals, events and history. Raises LeaseLostError.

        Refused (LeaseLostError) as well when a newer generation has been observed already, and when
        a finalized object was declared again meanwhile.
        An outcome that changes nothing writes nothing.
        """

    @abstractmethod
    async def get(self, key: Key) -> Object | None:
        """Read one object."""

    @abstractmethod
    async def list(self, kind: str | None = None, namespace: str | None = None) -> Sequence[Object]:
        """Read all objects, in the order of their keys."""

    @abstractmethod
    async def placed(self) -> Sequence[tuple[Key, str]]:
        """Every key with its lane, ``namespace/target``, in the order of keys: cheap for all."""

    @abstractmethod
    async def dependents(self, key: Key) -> Sequence[Key]:
        """Objects whose specs refer to this key, directly."""

    @abstractmethod
    async def request(self, request: Request, now: datetime) -> tuple[Key, ...]:
        """Do what a person asks for; the keys to look at now. Raises StoreError."""

    @abstractmethod
    async def sources(self) -> Sequence[SourceState]:
        """The last known state of each source."""

    @abstractmethod
    async def history(self, key: Key, limit: int) -> Sequence[Entry]:
        """The newest entries of an object, newest first; they survive its deletion."""

    @abstractmethod
    async def events(self, after: int, limit: int) -> Sequence[tuple[int, CloudEvent]]:
        """Events in the order they were written, after a position in the log."""

    @abstractmethod
    async def unpublished(self, limit: int) -> Sequence[tuple[int, CloudEvent]]:
        """Outbox rows that no bus has confirmed, oldest first."""

    @abstractmethod
    async def backlog(self) -> int:
        """How many outbox rows no bus has confirmed."""

    @abstractmethod
    async def published(self, positions: Sequence[int] | None, now: datetime) -> None:
        """Mark outbox rows as confirmed; all that there are, without positions."""

    @abstractmethod
    async def close(self) -> None:
        """Release files, connections and locks."""
