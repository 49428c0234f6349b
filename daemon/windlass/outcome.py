"""What a pass comes to: the end of hop 8. Pure, but for the dice of the backoff.

The plan's verdict, the step's success or error, and the old hold become the status, the records,
the events and the history that are written together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from windlass.conditions import Pass, farewell, summarize
from windlass.plan import Delete, Plan, Situation, Step, Verdict, hold_key
from windlass.priority import Priority
from windlass.store.base import Entry, ExternalRecord, Hold, Next, Object, Outcome, RecordState
from windlass_adapters.base import (
    AdapterError,
    Create,
    TerminalError,
    Update,
    WaitingError,
)
from windlass_schemas import Key, Reason, Status, references_of

BACKOFF_BASE = 1.0
BACKOFF_CAP = 300.0
"""Seconds. Full jitter: the delay is drawn from 0 to the exponential bound."""
AWAY_INTERVAL = 60.0
"""Seconds between two looks at an object whose host is away; its own daemon comes by itself."""
PROBE_INTERVAL = timedelta(hours=1)
"""How often a terminal error is tried again although nothing has changed."""

Draw = Callable[[float, float], float]
"""A random number between two bounds: ``random.uniform``, or a test's own."""


@dataclass(frozen=True)
class Result:
    """What the controller needs to know of a pass."""

    requeue_after: float | None
    """Seconds; None when the object is gone."""
    changed: bool = False
    """Whether anything was written that dependents may wait for."""
    wake: tuple[Key, ...] = ()
    """Others that must be looked at besides the dependents."""
    freed: str = ""
    """The source that declares the key too, and can have it now that its owner let it go."""
    label: str = "success"
    """``success``, ``requeue``, ``requeue_after`` or ``error``, as in controller-runtime."""

    @property
    def priority(self) -> Priority:
        """Of the next pass."""
        settled = self.label == "success" and self.requeue_after != 0
        return Priority.RESYNC if settled else Priority.FOLLOW_UP

    @property
    def next(self) -> Next:
        """The same for the store."""
        return Next(self.requeue_after, self.priority, self.changed, self.wake, self.freed)


@dataclass(frozen=True)
class Acted:
    """The step that was taken, if any, and what became of it."""

    step: Step | None = None
    record: ExternalRecord | None = None
    error: AdapterError | None = None
    duration: float = 0.0


def conclude(
    situation: Situation, decided: Plan, acted: Acted, pass_: Pass, draw: Draw
) -> tuple[Outcome, Result]:
    """What to write after a pass that had a plan."""
    object_ = situation.object
    hold = _hold(situation, decided, acted, draw)
    failed = hold if acted.error else None
    verdict = _verdict(decided.verdict, failed, situation, aside=decided.aside)
    changes = {record.name: record for record in decided.records}
    if acted.step is not None:  # the books on it are what was intended, or what came of that
        changes[acted.step.intent.name] = acted.record or acted.step.intent
    if decided.finalize:
        return _finalized(object_, tuple(changes.values()), pass_)
    known = {record.name: record for record in object_.externals}
    records = tuple((known | changes).values())
    status, events = summarize(object_, hold, verdict, records, pass_)
    outcome = Outcome(
        status=status,
        externals=tuple(r for r in changes.values() if known.get(r.name) != r),
        hold=hold,
        events=events,
        history=_history(object_, acted, hold, pass_),
    )
    return outcome, Result(
        requeue_after=verdict.requeue_after,
        changed=_is_news(object_.status, status),
        label=_label(verdict, acted),
    )


def _is_news(before: Status, after: Status) -> bool:
    """Whether dependents may care: not about when the next try is due."""
    if before is after:
        return False
    if (before.attempt, before.next_attempt_at) == (after.attempt, after.next_attempt_at):
        return True  # a status that says nothing new is the old one itself
    quiet = {"attempt": 0, "next_attempt_at": None}
    return before.model_copy(update=quiet) != after.model_copy(update=quiet)


def _history(object_: Object, acted: Acted, hold: Hold | None, pass_: Pass) -> tuple[Entry, ...]:
    if acted.step is None:
        return ()
    old = object_.hold
    if old and hold and (old.wanted_digest, old.message) == (hold.wanted_digest, hold.message):
        return ()  # said already; the attempt count is in the status
    entry = _entry(object_, acted.step, pass_)
    if acted.error is not None:
        entry = replace(entry, result=acted.error.reason.value, message=str(acted.error))
    return (replace(entry, duration=acted.duration),)


def _label(verdict: Verdict, acted: Acted) -> str:
    if acted.error is not None:
        return "error"
    if verdict.ready == "True" and not verdict.reconciling:
        return "success"
    return "requeue_after" if verdict.requeue_after else "requeue"


def _hold(situation: Situation, decided: Plan, acted: Acted, draw: Draw) -> Hold | None:
    """Why the next try must wait; None lifts a hold that has no reason any more."""
    old = situation.object.hold
    if old is None and acted.error is None:
        return None
    key = hold_key(situation)
    same = old if old is not None and old.wanted_digest == key else None
    if acted.error is None:
        waiting = same is not None and same.until > situation.now and acted.record is None
        return same if waiting else None
    return _hold_for(acted.error, same, key, (situation.now, situation.poll), draw)


def _hold_for(
    error: AdapterError, old: Hold | None, key: str, when: tuple[datetime, float], draw: Draw
) -> Hold:
    """``when`` is now, and the target's poll interval in seconds."""
    now, poll = when
    attempt = old.attempt if old else 0
    terminal = isinstance(error, TerminalError)
    if terminal:
        delay = PROBE_INTERVAL
    elif isinstance(error, WaitingError):
        delay = error.retry_after or timedelta(seconds=poll)
    else:
        bound = min(BACKOFF_BASE * 2.0 ** min(attempt, 16), BACKOFF_CAP)
        delay = timedelta(seconds=draw(0.0, bound))
    counted = attempt if isinstance(error, WaitingError) else attempt + 1
    return Hold(key, error.reason, str(error), now + delay, counted, terminal)


def fail(object_: Object, error: AdapterError, pass_: Pass, draw: Draw) -> tuple[Outcome, Result]:
    """The pass did not get as far as a plan: say why, keep everything, try again."""
    key = f"pass:{object_.generation}:{object_.sync_token}"
    old = object_.hold if object_.hold and object_.hold.wanted_digest == key else None
    poll = AWAY_INTERVAL if error.reason is Reason.HOST_AWAY else 5.0
    hold = _hold_for(error, old, key, (pass_.now, poll), draw)
    if hold.terminal:  # what is missing may be installed or declared any time
        hold = replace(hold, until=pass_.now + timedelta(minutes=1))
    verdict = Verdict(
        ready="False" if hold.terminal else "Unknown",
        reason=error.reason,
        message=str(error),
        sync="Unknown",
        health="Unknown",
        requeue_after=(hold.until - pass_.now).total_seconds(),
        reconciling=not hold.terminal,
        stalled=hold.terminal,
    )
    status, events = summarize(object_, hold, verdict, object_.externals, pass_)
    outcome = Outcome(status=status, hold=hold, events=events)
    news = _is_news(object_.status, status)
    return outcome, Result(verdict.requeue_after, news, label="error")


def _verdict(verdict: Verdict, hold: Hold | None, situation: Situation, *, aside: bool) -> Verdict:
    """The plan's verdict, unless acting on it failed, and that was not done aside."""
    if hold is None:
        return verdict
    after = max((hold.until - situation.now).total_seconds(), 0.0)
    if aside:
        return replace(verdict, requeue_after=min(verdict.requeue_after or after, after))
    return replace(
        verdict,
        ready="False",
        reason=hold.reason,
        message=hold.message,
        reconciling=not hold.terminal,
        stalled=hold.terminal,
        requeue_after=after,
    )


_DONE = {Create: "Created", Update: "Updated", Delete: "Deleted"}
_INTENDED = {Create: "CreateIntended", Update: "UpdateIntended", Delete: "DeleteIntended"}


def intention(object_: Object, step: Step, pass_: Pass) -> Entry | None:
    """The line of the history that goes before the act; None for another try of the same."""
    known = next((r for r in object_.externals if r.name == step.intent.name), None)
    if known is not None and (known.state, known.wanted) == (step.intent.state, step.intent.wanted):
        return None
    return replace(
        _entry(object_, step, pass_), action=_INTENDED[type(step.action)], result="intended"
    )


def _entry(object_: Object, step: Step, pass_: Pass) -> Entry:
    wanted = step.intent.wanted
    return Entry(
        at=pass_.now,
        key=object_.key,
        uid=object_.uid,
        generation=object_.generation,
        revision=object_.revision,
        author=object_.author,
        action=_DONE[type(step.action)],
        result="ok",
        message=f"{wanted.role} {wanted.name}: {step.message}",
    )


def _finalized(
    object_: Object, records: tuple[ExternalRecord, ...], pass_: Pass
) -> tuple[Outcome, Result]:
    """Nothing is left: the object goes, and those that it needed may go too."""
    orphaned = any(r.state is RecordState.ORPHANED for r in records)
    message = "left behind" if orphaned else "everything that it held is gone"
    entry = Entry(
        at=pass_.now,
        key=object_.key,
        uid=object_.uid,
        generation=object_.generation,
        revision=object_.revision,
        author=object_.author,
        action="Orphaned" if orphaned else "Removed",
        result="ok",
        message=message,
    )
    outcome = Outcome(
        status=object_.status,
        externals=records,
        events=(farewell(object_, message, pass_),),
        history=(entry,),
        finalized=True,
    )
    needed = tuple(reference.key for reference in references_of(object_.resource))
    return outcome, Result(None, changed=True, wake=needed, freed=object_.conflict)
