"""What is wanted of a backend, and what it holds: the words of hops 5 to 7."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple

from pydantic import JsonValue

from windlass_adapters.errors import AdapterError
from windlass_schemas import Artifact, Key, Reason, Resource, Signature


class Owner(NamedTuple):
    """Whose an external is. Backends carry it as a tag, a name or a file."""

    install: str
    """The id of this Windlass installation (its store)."""
    uid: str
    """The object's uid: new after delete and recreate, so a name alone never proves ownership."""
    key: Key


@dataclass(frozen=True)
class Desired:
    """An object as declared, with every reference resolved to an artifact."""

    owner: Owner
    resource: Resource
    files: Mapping[str, Artifact] = field(default_factory=dict)
    """Files that the spec names, by path beside the document; a folder gives one entry per file."""
    inputs: Mapping[str, Artifact] = field(default_factory=dict)
    """Artifacts taken from other objects, by ``Reference.slot``."""


@dataclass(frozen=True)
class Wanted:
    """One external that must exist: what ``normalise`` makes of a Desired."""

    role: str
    """What it is to the object: ``run``, ``artifact``, ``server``, ``config``, ``endpoint``."""
    name: str
    """Deterministic and unique on the target. A completing external gets ``-a<attempt>`` added."""
    digest: str
    """Identity of everything that decides what the external is; equal digest, no change."""
    body: Mapping[str, JsonValue]
    """All that ``apply`` needs, as JSON. Kept in the store, so never a secret, only references."""
    completes: bool = False
    """True for what runs to an end (a Job's run), False for what is meant to last."""


class External(NamedTuple):
    """A resource in a backend, as one addresses it."""

    role: str
    name: str
    external_id: str
    """The backend's id: equal to ``name`` where names are deterministic."""


class State(StrEnum):
    """What a backend resource is doing, in words that all backends share."""

    PROGRESSING = "Progressing"
    """Being created or changed, or running."""
    LIVE = "Live"
    """Lasting, and works."""
    DEGRADED = "Degraded"
    """Lasting, and does not work."""
    SUCCEEDED = "Succeeded"
    """Ended well."""
    FAILED = "Failed"
    """Ended badly (a run), or could not be made (anything else)."""
    DELETING = "Deleting"
    """Going; not gone yet."""


@dataclass(frozen=True)
class Found:
    """The backend holds it, and this is what it holds."""

    external: External
    owner_uid: str | None
    """The uid in its owner tag; None when it carries none."""
    state: State
    digest: str | None = None
    """The ``Wanted.digest`` that is in force now; None while nothing is."""
    pending_digest: str | None = None
    """The digest that a change under way will bring."""
    failed_digest: str | None = None
    """The digest of the last change that the backend refused."""
    reason: Reason | None = None
    """Why it is DEGRADED or FAILED, or why the change failed."""
    message: str = ""
    """The backend's own words."""
    attempt_counts: bool = True
    """False when it failed through no fault of its own: the machine stopped, or there was no
    capacity. A run gets another attempt; what lasts is tried again later."""
    outputs: Mapping[str, Artifact] = field(default_factory=dict)
    signature: Signature | None = None
    url: str | None = None
    detail: Mapping[str, JsonValue] = field(default_factory=dict)
    retire: str = ""
    """Why it should be taken down now, though it is still declared: its time is over. A run is
    stopped, and how it ended then is its result."""
    repair: str = ""
    """What the next update puts right before anything else: the failed change left it half-way."""
    look_again: timedelta | None = None
    """When it is worth another look at the latest, where a poll interval is too soon: while
    somebody listens, the adapter tells when it changes (``TellsChanges``)."""


@dataclass(frozen=True)
class Absent:
    """The backend said for certain that it does not hold it."""


@dataclass(frozen=True)
class Unknown:
    """Nobody knows: the question failed. Never to be read as absent."""

    message: str
    reason: Reason = Reason.BACKEND_UNAVAILABLE

    @classmethod
    def because(cls, error: AdapterError) -> Unknown:
        """What a question that failed this way has told. That one waits is no reason of its own."""
        waits = error.reason is Reason.WAITING
        return cls(str(error), Reason.BACKEND_UNAVAILABLE if waits else error.reason)


Observation = Found | Absent | Unknown


class Change(NamedTuple):
    """One field that the backend holds otherwise than wanted."""

    path: str
    """JSON pointer, for example ``/spec/replicas``."""
    held: JsonValue
    wanted: JsonValue


@dataclass(frozen=True)
class Create:
    """Make an external that does not exist."""

    wanted: Wanted
    attempt: int = 1


@dataclass(frozen=True)
class Update:
    """Change an external in place."""

    external: External
    wanted: Wanted
    changes: tuple[Change, ...] = ()
