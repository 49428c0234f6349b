"""The adapter contract: hops 5 (observe) and 7 (act) of a spec's way.

An adapter speaks to one kind of backend and is built once per Target. It is dumb on purpose: it
never waits, sleeps, retries or swallows an error, and it decides nothing. Whoever writes one needs
this file, one entry-point line under ``windlass.adapters``, and ``windlass_adapters.testing``.

    AdapterError
    +-- TransientError    passes by itself: retried with backoff
    +-- WaitingError      busy, quota, capacity: asked again, no attempt counted
    +-- TerminalError     no retry helps until an input changes: the object is Stalled
    +-- AmbiguousError    the effect may have happened: looked up before anything else
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol, Self, runtime_checkable

from pydantic import BaseModel, JsonValue

from windlass_adapters.artifacts import ArtifactStore
from windlass_schemas import Artifact, Key, Reason, Resource, Signature


class AdapterError(Exception):
    """A backend said no, or said nothing. The message is for people: what, and what to do."""

    reason: Reason = Reason.BACKEND_UNAVAILABLE
    retry_after: timedelta | None = None
    """When a WaitingError is worth another question, where a poll interval is too soon."""

    def __init__(self, message: str, *, reason: Reason | None = None) -> None:
        super().__init__(message)
        if reason is not None:
            self.reason = reason


class TransientError(AdapterError):
    """Passes by itself: retried with backoff."""


class WaitingError(AdapterError):
    """Busy, out of quota or capacity: asked again, no attempt counted."""

    reason = Reason.WAITING


class TerminalError(AdapterError):
    """No retry helps until the spec or another input changes."""

    reason = Reason.BACKEND_REFUSED


class AmbiguousError(AdapterError):
    """The effect may have happened: look it up by owner before anything else."""


ErrorClass = type[TransientError] | type[WaitingError] | type[TerminalError] | type[AmbiguousError]


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


@dataclass(frozen=True)
class Capabilities:
    """What the kernel must know of a backend."""

    deterministic_names: bool = True
    """Whether we choose the names, so that a second create cannot make a second one."""
    soak: timedelta = timedelta(0)
    """How long an absence must last before it is believed."""
    poll_interval: timedelta = timedelta(seconds=5)
    """How often something that is progressing is looked at."""
    resync_interval: timedelta = timedelta(minutes=5)
    """How often something settled is looked at."""
    timeout: timedelta = timedelta(seconds=30)
    """Bound on each call."""
    max_concurrent: int = 8
    """How many objects of this target may be worked on at once."""
    preempts: bool = False
    """Whether a newer update may be sent while one is under way."""
    by_name: bool = False
    """Whether a question by name alone is answered for certain, also for what we only meant to
    make. Then nothing is looked up by owner, which may be slow or late."""
    runs_end_with_power: bool = False
    """Whether a power cut of the daemon's machine ends every run, and what is left of one is found
    by its name. An intent to run need not outlive the power cut then."""
    adopts: bool = False
    """Whether a create under ``policy.adopt`` takes over what it finds under its name."""
    daemon: str | None = None
    """What it holds can be reached from one daemon's host only: that daemon's name, or empty for
    whichever opens the target first. None: every daemon reaches it."""


@dataclass(frozen=True)
class AdapterContext:
    """What the daemon gives to every adapter."""

    install: str
    target: str
    """``namespace/name`` of the Target."""
    state: Path
    """A folder of this target's own; kept over restarts."""
    artifacts: ArtifactStore
    keys: Path | None = None
    """File with the hashes of API keys, for adapters that serve models themselves."""


class Adapter(Protocol):
    """One backend. Built by ``Adapter(context, params)``; used inside ``async with``."""

    params_model: ClassVar[type[BaseModel]]
    """Model of ``Target.spec.params``."""
    options_models: ClassVar[Mapping[str, type[BaseModel]]]
    """Model of ``spec.options`` by kind; a kind that is not here is not supported."""

    @abstractmethod
    def __init__(self, context: AdapterContext, params: BaseModel) -> None: ...

    @property
    @abstractmethod
    def capabilities(self) -> Capabilities:
        """Facts about the backend. Constant."""

    @abstractmethod
    async def observe_many(
        self, externals: Sequence[tuple[Owner, External]]
    ) -> Mapping[External, Observation]:
        """Look at many at once; every external asked for has an answer.

        A failure that concerns all raises; a failure that concerns one is Unknown.
        """

    @abstractmethod
    async def find(self, owner: Owner) -> Sequence[Found]:
        """Everything in the backend that carries this owner's tag. Raises when it cannot tell."""

    @abstractmethod
    async def apply(self, owner: Owner, action: Create | Update) -> Found:
        """Send one change and return at once; the result may be PROGRESSING.

        Creating what this owner already holds under that name returns it unchanged.
        """

    @abstractmethod
    async def delete(self, owner: Owner, external: External) -> None:
        """Ask for removal and return at once. Absent is success. Another owner's is refused."""

    @abstractmethod
    def normalise(self, desired: Desired) -> tuple[Wanted, ...]:
        """What must exist for this object, in order of creation. Pure.

        Raises TerminalError(reason=INVALID_SPEC) for a spec that this backend cannot serve.
        """

    @abstractmethod
    def diff(self, wanted: Wanted, found: Found) -> tuple[Change, ...]:
        """What the backend holds otherwise than wanted, of the fields that the user set. Pure."""

    @abstractmethod
    def classify(self, exception: Exception) -> ErrorClass:
        """Which of the four classes an exception of the client library belongs to."""

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(self, *exc: object) -> None: ...


@runtime_checkable
class ChecksSpecs(Protocol):
    """An adapter that can tell from a spec alone that it will refuse it."""

    @staticmethod
    @abstractmethod
    def faults(resource: Resource) -> Iterable[tuple[str, str]]:
        """(field, what is wrong and what to write instead), of any kind but Target. Pure."""


@runtime_checkable
class CountsCalls(Protocol):
    """An adapter that counts what it asks of a remote API: for the metric, and for budgets."""

    @abstractmethod
    def api_calls(self) -> Mapping[tuple[str, str], int]:
        """Calls so far, by operation and result: ``ok``, or a word for what went wrong."""


class Number(NamedTuple):
    """One number of an adapter's own, for Prometheus."""

    name: str
    """What follows ``windlass_``; the adapter's name comes first: ``slurm_looks``."""
    kind: Literal["counter", "gauge"]
    help: str
    value: float
    labels: Mapping[str, str] = {}
    """Beside the Target's. Few and fixed: never an object's name."""


@runtime_checkable
class Measures(Protocol):
    """An adapter with numbers of its own for Prometheus."""

    @abstractmethod
    def numbers(self) -> Iterable[Number]:
        """As they stand now. Numbers of one name follow each other."""


@runtime_checkable
class Estimates(Protocol):
    """An adapter whose externals cost money, or leave something behind."""

    @abstractmethod
    def cost(self, wanted: Sequence[Wanted]) -> str:
        """What these cost while they are there, in one line for people; empty for nothing."""

    @abstractmethod
    def remains(self, wanted: Sequence[Wanted], *, orphaned: bool) -> str:
        """What is there still after their removal, in one line for people; empty for nothing."""


class Orphan(NamedTuple):
    """Something that this installation made and no object declares."""

    role: str
    name: str
    ref: str
    """The object that it was made for: ``Kind/namespace/name``."""
    since: datetime | None
    """When it was made."""
    cost: str
    """What it costs, for people; empty for nothing."""
    free: bool
    """Whether it costs nothing and nothing uses it, so that it may simply go."""
    hourly: float | None = None
    """What it costs in an hour, where a rate is known."""


@runtime_checkable
class FindsOrphans(Protocol):
    """An adapter that can tell what no object declares any more."""

    @abstractmethod
    async def orphans(self, living: Collection[Owner]) -> Sequence[Orphan]:
        """What of this installation belongs to none of the living."""

    @abstractmethod
    async def collect(self, orphan: Orphan) -> None:
        """Remove an orphan that is free; it is looked at once more before."""

    @abstractmethod
    async def remove(self, orphan: Orphan) -> None:
        """Remove or stop an orphan that somebody has named, whatever it costs.

        It is looked at once more before: what has another owner by now stays.
        """


class LogChunk(NamedTuple):
    """A piece of a run's output."""

    data: bytes
    next_offset: int
    complete: bool
    """True when the run has ended and nothing will follow."""


@runtime_checkable
class ReadsLogs(Protocol):
    """An adapter whose runs write output that can be read."""

    @abstractmethod
    async def read_log(
        self, external: External, stream: Literal["stdout", "stderr"], offset: int
    ) -> LogChunk:
        """Read from a byte offset, at most 64 KiB."""


class InferReply(NamedTuple):
    """The answer of a served model, as HTTP says it."""

    status: int
    headers: Mapping[str, str]
    body: bytes


SERVING_ROLES = frozenset({"server", "endpoint"})
"""Roles of externals that answer inference requests."""


@runtime_checkable
class Infers(Protocol):
    """An adapter whose Deployments answer inference requests."""

    @abstractmethod
    async def infer(
        self, external: External, body: bytes, headers: Mapping[str, str]
    ) -> InferReply:
        """Send one Open Inference Protocol v2 request. Raises TransientError if nobody answers."""
