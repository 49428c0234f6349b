"""The adapter contract: hops 5 (observe) and 7 (act) of a spec's way.

An adapter speaks to one kind of backend and is built once per Target. It is dumb on purpose: it
never waits, sleeps, retries or swallows an error, and it decides nothing. Whoever writes one needs
this module, one entry-point line under ``windlass.adapters``, and ``windlass_adapters.testing``.

Three modules hold the words of the contract, all of which are imported from here: ``externals``,
what is wanted and what is held; ``errors``, the four classes; ``abilities``, what only some
adapters can do.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, Protocol, Self

from pydantic import BaseModel

from windlass_adapters.abilities import (
    SERVING_ROLES,
    ChecksSpecs,
    CountsCalls,
    Estimates,
    FindsOrphans,
    InferReply,
    Infers,
    LogChunk,
    Measures,
    Number,
    Orphan,
    ReadsLogs,
    TellsChanges,
)
from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.errors import (
    AdapterError,
    AmbiguousError,
    ErrorClass,
    TerminalError,
    TransientError,
    WaitingError,
)
from windlass_adapters.externals import (
    Absent,
    Change,
    Create,
    Desired,
    External,
    Found,
    Observation,
    Owner,
    State,
    Unknown,
    Update,
    Wanted,
)

__all__ = [
    "SERVING_ROLES",
    "Absent",
    "Adapter",
    "AdapterContext",
    "AdapterError",
    "AmbiguousError",
    "Capabilities",
    "Change",
    "ChecksSpecs",
    "CountsCalls",
    "Create",
    "Desired",
    "ErrorClass",
    "Estimates",
    "External",
    "FindsOrphans",
    "Found",
    "InferReply",
    "Infers",
    "LogChunk",
    "Measures",
    "Number",
    "Observation",
    "Orphan",
    "Owner",
    "ReadsLogs",
    "State",
    "TellsChanges",
    "TerminalError",
    "TransientError",
    "Unknown",
    "Update",
    "WaitingError",
    "Wanted",
]


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
