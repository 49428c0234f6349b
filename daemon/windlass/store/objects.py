"""What a pass reads: one object, as declared and as our books have it. Hop 4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from windlass_adapters.base import External, Wanted
from windlass_schemas import Artifact, Key, Reason, Resource, Signature, Status


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
