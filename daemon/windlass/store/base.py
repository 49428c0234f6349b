"""The store port: what is remembered between passes (hops 2, 4, 7 and 8).

Tables: desired (what sources declare), object (status), external (what backends hold for us, with
intents), history (append-only), outbox (events to publish), source (last revision of each source).

Every write of a pass is guarded by the claim's token: who has lost the claim writes nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Protocol

from windlass.priority import Priority
from windlass.store.roster import Roster
from windlass_adapters.base import External, Wanted
from windlass_schemas import (
    Artifact,
    CloudEvent,
    Key,
    Reason,
    Resource,
    Signature,
    Status,
    canonical_json,
    dump_resource,
    key_of,
)


class StoreError(Exception):
    """The store cannot do it. The message says what to do."""


class LeaseLostError(StoreError):
    """Another daemon has taken the object over; nothing was written."""


class AwayError(StoreError):
    """The store cannot be reached, or broke off: what was asked for may have happened or not."""


class ExternalTakenError(StoreError):
    """Another object of ours holds that external; nothing was written."""


class SourceConflictError(StoreError):
    """The key belongs to another source; nothing was written."""


@dataclass(frozen=True)
class Document:
    """One valid document as a source read it, with the files that it names already kept."""

    resource: Resource
    files: Mapping[str, Artifact]
    """By path beside the document; a folder gives one entry per file."""
    digest: str
    path: str
    """Path inside the source, for messages."""
    line: int

    @cached_property
    def key(self) -> Key:
        """The object that it declares."""
        return key_of(self.resource)

    @cached_property
    def canonical(self) -> str:
        """The resource as canonical JSON. Made once: a document lives on in the next snapshots."""
        return canonical_json(dump_resource(self.resource))


@dataclass(frozen=True)
class Fault:
    """One thing wrong with one document, in the words of the loader."""

    path: str
    line: int
    column: int
    field: str
    """Dotted path inside the document; empty when the document as a whole is meant."""
    message: str
    key: Key | None = None
    """The object that the document speaks of, when that much can be read."""

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}:{self.column}"
        return f"{place} {self.field}: {self.message}" if self.field else f"{place} {self.message}"


@dataclass(frozen=True)
class Snapshot:
    """The whole current set of one source at one revision."""

    source: str
    """The source's id, for example ``git:/srv/specs``."""
    revision: str
    """Commit id, or ``worktree:<digest>`` for saved files."""
    author: str
    """Who made the revision, for the history."""
    documents: tuple[Document, ...]
    faults: tuple[Fault, ...] = ()
    """While there is any, nothing is pruned."""


@dataclass(frozen=True)
class Applied:
    """What a snapshot did to the store."""

    changed: tuple[Key, ...]
    """New objects, new generations, deletions, and objects with new or mended faults."""
    conflicts: Mapping[Key, str] = field(default_factory=dict)
    """Keys that another source owns, and that source's id."""
    pruning: tuple[Key, ...] = ()
    """Objects whose deletion this snapshot has marked."""
    blocked: tuple[Key, ...] = ()
    """Objects that the breaker kept from being pruned; approve the revision to go on."""


@dataclass(frozen=True)
class SourceState:
    """What is known of one source."""

    id: str
    revision: str
    faults: tuple[str, ...]
    error: str
    """Why the source cannot be read at the moment; empty when it can."""
    blocked: tuple[Key, ...]
    updated_at: datetime


class RecordState(StrEnum):
    """How far we are with an external, by our own books."""

    INTENDED = "intended"
    """We are about to create it, or did and do not know."""
    CREATED = "created"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DELETING = "deleting"
    RETIRED = "retired"
    """Taken down because its time was over; made again when the spec changes or on request."""
    FORGOTTEN = "forgotten"
    """A run that was over, on its way out: there are newer ones."""
    ORPHANED = "orphaned"
    GONE = "gone"


@dataclass(frozen=True)
class ExternalRecord:
    """Our books on one external. ``wanted`` is what was last applied, so that it can be re-made."""

    target: str
    wanted: Wanted
    state: RecordState
    external_id: str | None = None
    """None until the backend has given one; equal to the name where names are deterministic."""
    attempt: int = 1
    generation: int = 0
    """The generation that asked for it."""
    sync_token: str | None = None
    """The ``windlass sync`` that asked for it; a new one gives failed work another try."""
    outputs: Mapping[str, Artifact] = field(default_factory=dict)
    signature: Signature | None = None
    reason: Reason | None = None
    message: str = ""
    attempt_counts: bool = True
    absent_since: datetime | None = None
    """Since when the backend has said that it is not there."""
    acted_at: datetime | None = None
    """When we last changed it."""
    healed: tuple[datetime, ...] = ()
    """The latest self-heals, for telling a fight from an accident."""
    rank: int = 0
    """Its place among all that was wanted with it: what has a higher one may be using it."""

    @property
    def external(self) -> External:
        """How the adapter addresses it."""
        return External(self.wanted.role, self.wanted.name, self.external_id or self.wanted.name)

    @property
    def name(self) -> tuple[str, str, str]:
        """Its identity in our books: target, role, name."""
        return (self.target, self.wanted.role, self.wanted.name)


@dataclass(frozen=True)
class Hold:
    """Why the next action must wait: the last one failed, and it is the same action still."""

    wanted_digest: str
    """Of the whole wanted set; another one lifts the hold."""
    reason: Reason
    message: str
    until: datetime
    attempt: int
    terminal: bool


@dataclass(frozen=True)
class Object:
    """Everything about one key, as one consistent read."""

    key: Key
    uid: str
    generation: int
    digest: str
    resource: Resource
    files: Mapping[str, Artifact]
    source: str
    revision: str
    path: str
    line: int
    created_at: datetime
    generation_at: datetime
    """When this generation was declared."""
    deleting_since: datetime | None = None
    prune: str = ""
    """``awaiting`` (confirm), ``skipped`` (never), ``blocked`` (breaker), or empty."""
    faults: tuple[str, ...] = ()
    """What is wrong with the newest document; this object is the last good version."""
    conflict: str = ""
    """Another source that declares the same key."""
    suspended: str = ""
    """Why somebody suspended it by command."""
    sync_token: str | None = None
    status: Status = field(default_factory=Status)
    externals: tuple[ExternalRecord, ...] = ()
    hold: Hold | None = None
    seq: int = 0
    """Number of the last event of this object."""
    author: str = ""
    """Who declared this generation."""
    due: bool = field(default=False, compare=False)
    """Whether a daemon works on it or may begin to; only a store that is shared knows it."""


@dataclass(frozen=True)
class Claim:
    """The right to write one object's pass."""

    object: Object
    token: int
    asked: int = 0
    """How often the object had been asked for when it was read; for stores that are shared."""


@dataclass(frozen=True)
class Entry:
    """One line of the history: who caused what, and how it went."""

    at: datetime
    key: Key
    uid: str
    generation: int
    revision: str
    author: str
    action: str
    """Past tense: ``Declared``, ``Created``, ``Updated``, ``Deleted``, ``Suspended``..."""
    result: str
    """``ok`` or the reason of the error."""
    message: str
    duration: float = 0.0
    """Seconds."""


@dataclass(frozen=True)
class Next:
    """What follows a pass. A store that daemons share keeps it; else a daemon has it."""

    after: float | None = None
    """Seconds until the object is due again; None for never by itself."""
    priority: Priority = Priority.RESYNC
    news: bool = False
    """Whether what stands on the object is due now."""
    wake: tuple[Key, ...] = ()
    """Others that are due now."""
    freed: str = ""
    """The source that can have the key now."""
    home: str | None = None
    """The daemon that alone can go on with it; None leaves that as it is."""


@dataclass(frozen=True)
class Outcome:
    """What a pass writes at its end, all or nothing."""

    status: Status
    externals: tuple[ExternalRecord, ...] = ()
    """New or changed records; records that are not named stay as they are."""
    hold: Hold | None = None
    events: tuple[CloudEvent, ...] = ()
    history: tuple[Entry, ...] = ()
    finalized: bool = False
    """The object is gone: its desired row goes too."""
    next: Next = Next()


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
    async def published(self, positions: Sequence[int], now: datetime) -> None:
        """Mark outbox rows as confirmed."""

    @abstractmethod
    async def close(self) -> None:
        """Release files, connections and locks."""
