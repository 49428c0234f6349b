"""What the API answers: documented values, the same for the server and for the command line.

Imports no web framework, so that client commands start fast.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from pydantic import BaseModel, ConfigDict, JsonValue
from pydantic.alias_generators import to_camel

from windlass.store.base import Entry, Object, SourceState
from windlass.store.roster import Colleague
from windlass_schemas import CloudEvent, Status, dump_resource


class View(BaseModel):
    """A value of the API: camelCase outside; a client skips fields that it does not know."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        frozen=True,
        use_attribute_docstrings=True,
    )


class Problem(View):
    """Why a request was refused."""

    error: str
    """What went wrong, and where."""
    hint: str
    """What to do."""


class ObjectView(View):
    """One object: what was declared, and what was found and done."""

    key: str
    """``Kind/namespace/name``."""
    kind: str
    namespace: str
    name: str
    labels: dict[str, str]
    uid: str
    """New after delete and recreate."""
    generation: int
    """Rises by one when spec, policy or a named file changes."""
    spec: dict[str, JsonValue]
    """As declared; fields with their default are left out."""
    policy: dict[str, JsonValue]
    """As declared; fields with their default are left out."""
    source: str
    """The source that declares it."""
    revision: str
    """The revision that brought this generation."""
    author: str
    """Who made that revision."""
    path: str
    """The document's file inside the source."""
    line: int
    created_at: datetime
    generation_at: datetime
    """When this generation was declared."""
    deleting_since: datetime | None
    prune: str
    """``awaiting``, ``skipped`` or ``blocked`` when the document is gone and the object stays."""
    faults: tuple[str, ...]
    """What is wrong with the newest document; the last good version is in force."""
    conflict: str
    """Another source that declares the same key."""
    suspended: str
    """Why the object is suspended; empty when it is not."""
    pending: bool
    """Whether a pass is due or under way."""
    status: Status


class ObjectList(View):
    """Objects in the order of their keys."""

    objects: tuple[ObjectView, ...]


class OrphanName(View):
    """Something left behind, by name."""

    target: str
    """``namespace/name``."""
    role: str
    """What it is: ``endpoint``, ``run``, ``model``..."""
    name: str
    """Its name in the backend."""


class OrphanView(OrphanName):
    """Something that a backend holds and no object declares."""

    made_for: str
    """The object that it was made for: ``Kind/namespace/name``."""
    since: datetime | None
    """When it was made."""
    cost: str
    """For people; empty where it costs nothing."""
    dollars_an_hour: float | None
    """Where the target's rates know it."""
    free: bool
    """Whether it costs nothing and goes by itself."""


class OrphanList(View):
    """What is left behind on the targets that this daemon has opened."""

    orphans: tuple[OrphanView, ...]
    unasked: dict[str, str]
    """Targets that could not be asked, and why."""


class HistoryEntry(View):
    """One line of an object's history."""

    at: datetime
    key: str
    uid: str
    generation: int
    revision: str
    author: str
    action: str
    result: str
    """``ok`` or the reason of the error."""
    message: str
    duration: float
    """Seconds."""


class HistoryList(View):
    """Entries, newest first; they survive the object."""

    entries: tuple[HistoryEntry, ...]


class LoggedEvent(View):
    """An event and its place in the log."""

    position: int
    event: CloudEvent


class EventList(View):
    """A page of the log."""

    events: tuple[LoggedEvent, ...]
    next: int
    """Ask again with ``after=<next>``."""
    more: bool
    """Whether there may be more already."""


class SourceView(View):
    """One source: where it is and what is wrong with it."""

    id: str
    revision: str
    faults: tuple[str, ...]
    error: str
    """Why it cannot be read now; empty when it can."""
    blocked: tuple[str, ...]
    """Objects that the breaker keeps from being pruned until the revision is approved."""
    updated_at: datetime


class SourceList(View):
    """All sources, and what they have to say to people."""

    sources: tuple[SourceView, ...]
    notes: tuple[str, ...]


class Accepted(View):
    """A request was written down; the next passes see to it."""

    keys: tuple[str, ...]
    """Objects that are looked at now."""
    token: str | None = None
    """Of a sync: done when ``status.handledSync`` is this."""


class CheckView(View):
    """One thing that a running daemon must have."""

    name: str
    ok: bool
    message: str


class Readiness(View):
    """Whether the daemon works as a whole."""

    ready: bool
    checks: tuple[CheckView, ...]


class Facts(View):
    """What ``windlass doctor`` wants to know of a running daemon."""

    version: str
    python: str
    pid: int
    state: str
    """The state folder, absolute."""
    install: str
    """Id of this installation."""
    serving_port: int
    checks: tuple[CheckView, ...]
    notes: tuple[str, ...]
    daemons: tuple[DaemonView, ...] = ()
    """All that share the store; none where a daemon works alone."""


class DaemonView(View):
    """One of the daemons that share a store."""

    name: str
    host: str
    pid: int
    version: str
    workers: int
    started_at: datetime
    until: datetime
    """When it stops counting as alive unless it says another word, or stopped."""
    alive: bool
    held: int
    """Objects that it works on."""
    leases: tuple[str, ...]
    """What it alone does: ``source:...`` follows a source, ``outbox`` publishes events."""
    targets: tuple[str, ...]
    """Targets whose resources live on its host."""


class DaemonList(View):
    """In the order of their names; none where a daemon works alone."""

    daemons: tuple[DaemonView, ...]


class SuspendBody(View):
    """Why an object is suspended."""

    reason: str


class ApproveBody(View):
    """A revision that may prune what the breaker held back."""

    revision: str
    """The revision, or its first characters."""


class TransferBody(View):
    """Who is to own an object."""

    to: str
    """The id of a source that declares it too."""


def view_object(found: Object, *, pending: bool, now: datetime) -> ObjectView:
    """The view of an object as it is stored."""
    document = dump_resource(found.resource)
    spec, policy = document.get("spec"), document.get("policy")
    return ObjectView(
        key=str(found.key),
        kind=found.key.kind,
        namespace=found.key.namespace,
        name=found.key.name,
        labels=found.resource.metadata.labels,
        uid=found.uid,
        generation=found.generation,
        spec=spec if isinstance(spec, dict) else {},
        policy=policy if isinstance(policy, dict) else {},
        source=found.source,
        revision=found.revision,
        author=found.author,
        path=found.path,
        line=found.line,
        created_at=found.created_at,
        generation_at=found.generation_at,
        deleting_since=found.deleting_since,
        prune=found.prune,
        faults=found.faults,
        conflict=found.conflict,
        suspended=suspension_of(found, now),
        pending=pending,
        status=found.status,
    )


def suspension_of(found: Object, now: datetime) -> str:
    """Why the object is suspended, by command or by its own policy; empty when it is not."""
    declared = found.resource.policy.suspend
    if found.suspended or declared is None:
        return found.suspended
    return declared.reason if declared.until is None or declared.until > now else ""


def view_daemon(found: Colleague) -> DaemonView:
    """The view of a daemon."""
    return DaemonView.model_validate(asdict(found))


def view_entry(entry: Entry) -> HistoryEntry:
    """The view of a history entry."""
    return HistoryEntry(
        at=entry.at,
        key=str(entry.key),
        uid=entry.uid,
        generation=entry.generation,
        revision=entry.revision,
        author=entry.author,
        action=entry.action,
        result=entry.result,
        message=entry.message,
        duration=entry.duration,
    )


def view_source(state: SourceState) -> SourceView:
    """The view of a source."""
    return SourceView(
        id=state.id,
        revision=state.revision,
        faults=state.faults,
        error=state.error,
        blocked=tuple(str(key) for key in state.blocked),
        updated_at=state.updated_at,
    )
