"""What a plan is made from and what it says. Values only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from pydantic import JsonValue

from windlass.store.base import ExternalRecord, Object, RecordState
from windlass_adapters.base import (
    Capabilities,
    Change,
    Create,
    External,
    Found,
    Observation,
    Unknown,
    Update,
    Wanted,
)
from windlass_schemas import Artifact, Health, Key, Reason, Signature, Sync, Truth

UNKNOWN_CAP = 30.0
"""Seconds between two questions to a backend that does not answer."""


@dataclass(frozen=True)
class Blocker:
    """Something that this object needs and that is not Ready."""

    key: Key
    message: str
    cycle: bool = False
    """Whether it can never become Ready, because it waits for this object in turn."""


@dataclass(frozen=True)
class Dependent:
    """An object whose spec refers to this one."""

    key: Key
    deleting: bool


@dataclass(frozen=True)
class Situation:
    """One object as declared, recorded and observed, at one moment. All that a plan may look at."""

    object: Object
    target: str
    wanted: tuple[Wanted, ...]
    """What must exist; empty while ``blockers`` keep it from being known."""
    observed: Mapping[tuple[str, str, str], Observation]
    """By ``ExternalRecord.name``: an answer for every record."""
    capabilities: Capabilities
    now: datetime
    blockers: tuple[Blocker, ...] = ()
    refusal: tuple[Reason, str] | None = None
    """Why the adapter cannot serve the spec; ``wanted`` is empty then."""
    dependents: tuple[Dependent, ...] = ()
    diff: Callable[[Wanted, Found], tuple[Change, ...]] = lambda wanted, found: ()
    history: int | None = None
    """How many earlier runs are kept; None for all."""
    in_use: frozenset[str] = frozenset()
    """Digests and addresses that objects hold which take from this one; known when a run is to be
    forgotten."""

    @property
    def poll(self) -> float:
        """Seconds until something that is progressing is looked at again."""
        return self.capabilities.poll_interval.total_seconds()

    @property
    def resync(self) -> float:
        """Seconds until something settled is looked at again."""
        return self.capabilities.resync_interval.total_seconds()

    @property
    def suspension(self) -> tuple[str, datetime | None]:
        """Why the object is suspended, by command or by policy, and until when; empty if not."""
        declared = self.object.resource.policy.suspend
        if self.object.suspended:
            return self.object.suspended, None
        if declared is None or (declared.until is not None and declared.until <= self.now):
            return "", None
        return declared.reason, declared.until

    def record_of(self, wanted: Wanted) -> ExternalRecord | None:
        """Our books on a wanted external, if there are any."""
        name = (self.target, wanted.role, wanted.name)
        return next((r for r in self.object.externals if r.name == name), None)

    def seen(self, record: ExternalRecord) -> Observation:
        """What the backend says of it."""
        return self.observed[record.name]

    def unseen_for(self, record: ExternalRecord) -> timedelta:
        """How much longer an answer may be older than our last act on it, and so proves nothing."""
        if record.acted_at is None:
            return timedelta(0)
        return max(self.capabilities.soak - (self.now - record.acted_at), timedelta(0))

    def absent_for(self, record: ExternalRecord) -> timedelta:
        """How much longer an absence must last before it is believed."""
        since = record.absent_since or self.now
        return max(self.capabilities.soak - (self.now - since), timedelta(0))


@dataclass(frozen=True)
class Delete:
    """Ask a backend to remove an external."""

    external: External


Action = Create | Update | Delete


@dataclass(frozen=True)
class Step:
    """One mutating action, with what the books must say before it is taken."""

    action: Action
    intent: ExternalRecord
    message: str
    """Why, for the history and for ``windlass plan``."""


@dataclass(frozen=True)
class Verdict:
    """How the object stands, for its conditions."""

    ready: Truth
    reason: Reason
    message: str
    sync: Sync
    health: Health
    requeue_after: float
    reconciling: bool = False
    stalled: bool = False
    outputs: Mapping[str, Artifact] | None = None
    """None keeps what the status has."""
    signature: Signature | None = None
    url: str | None = None
    detail: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What to do and how things stand. Only the first step is taken in one pass."""

    verdict: Verdict
    steps: tuple[Step, ...] = ()
    records: tuple[ExternalRecord, ...] = ()
    """Corrections to our books that need no action."""
    finalize: bool = False
    """Nothing is left: the object itself may go."""
    aside: bool = False
    """Whatever becomes of the steps, the verdict holds."""

    def without_steps(self, verdict: Verdict) -> Plan:
        """The same findings, with nothing to be done about them now."""
        return replace(self, verdict=verdict, steps=())


def create(situation: Situation, wanted: Wanted, message: str, attempt: int = 1) -> Step:
    """A step that makes an external."""
    intent = ExternalRecord(
        target=situation.target,
        wanted=wanted,
        state=RecordState.INTENDED,
        attempt=attempt,
        generation=situation.object.generation,
        sync_token=situation.object.sync_token,
        acted_at=situation.now,
    )
    return Step(Create(wanted, attempt), intent, message)


def update(
    situation: Situation,
    record: ExternalRecord,
    wanted: Wanted,
    message: str,
    changes: tuple[Change, ...] = (),
) -> Step:
    """A step that changes an external in place."""
    intent = replace(
        record,
        wanted=wanted,
        state=RecordState.INTENDED,
        generation=situation.object.generation,
        sync_token=situation.object.sync_token,
        acted_at=situation.now,
        absent_since=None,
    )
    return Step(Update(record.external, wanted, changes), intent, message)


def delete(situation: Situation, record: ExternalRecord, message: str) -> Step:
    """A step that removes an external."""
    intent = replace(record, state=RecordState.DELETING, acted_at=situation.now, absent_since=None)
    return Step(Delete(record.external), intent, message)


def last_first(records: Iterable[ExternalRecord]) -> list[ExternalRecord]:
    """In the order of removal: by what may be using what, and not by what was made last.

    After an update, what is used (a config) may be younger than what uses it (an endpoint).
    """
    return sorted(records, key=lambda record: record.rank)[::-1]


def pause_after(situation: Situation, steps: Iterable[Step]) -> float:
    """Seconds until the next look: none after something new, a poll after what was asked before."""
    known = {r.name: r.state for r in situation.object.externals}
    repeated = all(known.get(s.intent.name) is s.intent.state for s in steps)
    return situation.poll if repeated else 0.0


def unknown(situation: Situation, seen: Unknown) -> Verdict:
    """Nobody knows how it stands, so nothing may be concluded. Asked again ever less often."""
    ready = situation.object.status.condition("Ready")
    lasting = timedelta(0)
    if ready is not None and ready.status == "Unknown":
        lasting = situation.now - ready.last_transition_time
    after = min(max(situation.poll, 1.0, lasting.total_seconds() / 2), UNKNOWN_CAP)
    return Verdict(
        ready="Unknown",
        reason=seen.reason,
        message=seen.message,
        sync="Unknown",
        health="Unknown",
        requeue_after=after,
        reconciling=True,
    )


def progressing(
    situation: Situation,
    message: str,
    *,
    health: Health = "Progressing",
    sync: Sync = "OutOfSync",
    after: float | None = None,
) -> Verdict:
    """A change is under way."""
    return Verdict(
        ready="False",
        reason=Reason.PROGRESSING,
        message=message,
        sync=sync,
        health=health,
        requeue_after=situation.poll if after is None else after,
        reconciling=True,
    )


def stalled(
    situation: Situation,
    reason: Reason,
    message: str,
    *,
    health: Health = "Degraded",
    sync: Sync = "OutOfSync",
    after: float | None = None,
) -> Verdict:
    """Nothing more will happen by itself."""
    return Verdict(
        ready="False",
        reason=reason,
        message=message,
        sync=sync,
        health=health,
        requeue_after=situation.resync if after is None else after,
        stalled=True,
    )
