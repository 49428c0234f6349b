"""Plans for what runs to an end: a Job's runs.

A run is known by the digest of everything that decides its result. A digest that has succeeded once
is never run again, whether the backend remembers it or not; going back to it costs nothing.
What a run needs (a model that it applies) is made before it and goes when no run can need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from windlass.plan.history import forget
from windlass.plan.lasting import leftovers, plan_lasting
from windlass.plan.situation import (
    Plan,
    Situation,
    Step,
    Verdict,
    create,
    delete,
    pause_after,
    progressing,
    stalled,
    unknown,
)
from windlass.store.base import ExternalRecord, RecordState
from windlass_adapters.base import Absent, Create, Found, Observation, State, Unknown, Wanted
from windlass_schemas import Job, Reason, Sweep

INFRASTRUCTURE_RETRIES = 3
"""Further attempts after failures that are not the script's."""
RETRY_DELAY = 1.0
"""Seconds before the second attempt; doubles with each, up to five minutes."""
RETRY_DELAY_CAP = 300.0

DECIDED = frozenset({Reason.CANCELLED, Reason.UNSCHEDULABLE})
"""Failures that another attempt does not make good: a person or the backend has decided."""

_ACTIVE = (RecordState.INTENDED, RecordState.CREATED, RecordState.DELETING)


def plan_runs(s: Situation, wanted: Wanted | None, needs: tuple[Wanted, ...] = ()) -> Plan:
    """Bring our books up to date, then say what comes next. ``wanted`` is None while blocked.

    ``needs`` is what must be there, and live, before a run may begin.
    """
    runs = [_look(s, record) for record in s.object.externals if record.wanted.completes]
    changed = tuple(r for r in runs if r not in s.object.externals)
    runs = [r for r in runs if r.state is not RecordState.GONE]
    for record in runs:
        seen = s.seen(record)
        if record.state in _ACTIVE and isinstance(seen, Unknown):
            return Plan(unknown(s, seen), records=changed)
    if wanted is None:
        active = any(r.state in _ACTIVE for r in runs)
        after = s.poll if active else s.resync
        return Plan(progressing(s, "waiting", health="Unknown", after=after), records=changed)
    result = _next(s, wanted, runs)
    begins = next((step for step in result.steps if isinstance(step.action, Create)), None)
    if begins is not None:
        result = _prepared(s, needs, result, begins)
    elif result.verdict.ready == "True" and not result.steps and not _going(runs):
        left = leftovers(s, needs)
        result = replace(result, steps=left.steps, records=left.records)
    if not result.steps and not result.verdict.reconciling and not _going(runs):
        result = forget(s, wanted, runs, result)
    return replace(result, records=(*changed, *result.records))


def _going(runs: Sequence[ExternalRecord]) -> bool:
    return any(r.state in _ACTIVE for r in runs)


def _prepared(s: Situation, needs: tuple[Wanted, ...], result: Plan, begins: Step) -> Plan:
    """What the run needs first; the run itself once all of that lives and nothing else is left."""
    before = plan_lasting(s, needs)
    begins = replace(begins, intent=replace(begins.intent, rank=len(needs)))  # it goes first
    if before.verdict.ready == "True":
        return replace(result, steps=(begins,), records=before.records)
    verdict = replace(before.verdict, sync="OutOfSync", outputs=None)
    return Plan(verdict, (*before.steps, begins) if before.steps else (), before.records)


def _look(s: Situation, record: ExternalRecord) -> ExternalRecord:
    """One record, corrected by what was observed. What is over stays over."""
    if record.state is RecordState.FORGOTTEN:
        return _look_forgotten(s, record)
    if record.state not in _ACTIVE:
        return record
    seen = s.seen(record)
    if isinstance(seen, Unknown):
        return record
    if isinstance(seen, Absent):
        return _look_absent(s, record)
    known = replace(record, external_id=seen.external.external_id, absent_since=None)
    match seen.state:
        case State.SUCCEEDED:
            return replace(known, state=RecordState.SUCCEEDED, outputs=seen.outputs, message="")
        case State.FAILED if record.state is not RecordState.DELETING:
            return _failed(
                s, known, seen.reason or Reason.FAILED, seen.message, seen.attempt_counts
            )
        case State.DELETING:
            return replace(known, state=RecordState.DELETING)
        case _ if record.state is RecordState.INTENDED:
            return replace(known, state=RecordState.CREATED)
        case _:
            return known


def _look_forgotten(s: Situation, record: ExternalRecord) -> ExternalRecord:
    if not isinstance(s.seen(record), Absent):
        return record
    missing = replace(record, absent_since=record.absent_since or s.now)
    soaking = s.absent_for(missing).total_seconds() > 0
    return missing if soaking else replace(record, state=RecordState.GONE)


def _look_absent(s: Situation, record: ExternalRecord) -> ExternalRecord:
    missing = replace(record, absent_since=record.absent_since or s.now)
    if s.absent_for(missing).total_seconds() > 0 or record.state is RecordState.INTENDED:
        return missing
    if record.state is RecordState.DELETING:
        return replace(record, state=RecordState.GONE)
    return _failed(s, missing, Reason.INTERRUPTED, "the run vanished without a result", False)


def _failed(
    s: Situation, record: ExternalRecord, reason: Reason, message: str, counts: bool
) -> ExternalRecord:
    return replace(
        record,
        state=RecordState.FAILED,
        reason=reason,
        message=message,
        attempt_counts=counts,
        acted_at=s.now,
    )


def _next(s: Situation, wanted: Wanted, runs: Sequence[ExternalRecord]) -> Plan:
    spec = _spec(s).spec
    runs = [r for r in runs if r.state is not RecordState.FORGOTTEN]
    mine = [r for r in runs if r.wanted.digest == wanted.digest and r.target == s.target]
    others = [r for r in runs if r not in mine]
    going = [r for r in others if r.state in _ACTIVE]
    done = next((r for r in mine if r.state is RecordState.SUCCEEDED), None)
    active = next((r for r in mine if r.state in _ACTIVE), None)
    if done is not None:
        return _succeeded(s, done, going)
    if active is not None:
        return _running(s, wanted, active)
    if spec.on_change == "refuse" and others:
        message = "it has run already and onChange is refuse; declare it under a new name"
        return Plan(stalled(s, Reason.CHANGE_REFUSED, message))
    if going:
        return _make_way(s, going)
    return _attempt(s, wanted, mine)


def _spec(s: Situation) -> Job | Sweep:
    resource = s.object.resource
    assert isinstance(resource, Job | Sweep), resource.kind
    return resource


def _succeeded(s: Situation, done: ExternalRecord, going: Sequence[ExternalRecord]) -> Plan:
    verdict = Verdict(
        ready="True",
        reason=Reason.SUCCEEDED,
        message=f"attempt {done.attempt} succeeded",
        sync="Synced",
        health="Healthy",
        requeue_after=s.poll if going else s.resync,
        outputs=done.outputs,
    )
    replacing = _spec(s).spec.on_change == "replace"
    stopping = [r for r in going if replacing or r.state is RecordState.DELETING]
    return replace(_stop(s, stopping, ""), verdict=verdict)


def _running(s: Situation, wanted: Wanted, active: ExternalRecord) -> Plan:
    seen = s.seen(active)
    name = active.wanted.name
    unseen = s.absent_for(active).total_seconds()
    if active.state is RecordState.INTENDED and isinstance(seen, Absent) and unseen <= 0:
        # As declared now: what does not decide the result may have been mended since.
        step = create(s, replace(wanted, name=name), "not started yet", active.attempt)
        return Plan(progressing(s, f"starting {name}", after=0), (step,))
    if isinstance(seen, Absent):
        return Plan(progressing(s, f"{name} is not seen; looking again", after=unseen))
    assert isinstance(seen, Found)
    if active.state is RecordState.DELETING:
        return _stop(s, [active], f"removing {name}, which is not whole any more")
    if seen.retire:  # it stays in our books: how it ended is a result
        step = delete(s, active, seen.retire)
        step = replace(step, intent=replace(active, acted_at=s.now))
        return Plan(progressing(s, f"stopping {name}: {seen.retire}", sync="Synced"), (step,))
    message = seen.message or f"attempt {active.attempt} is running"
    after = max(s.poll, seen.look_again.total_seconds()) if seen.look_again else None
    verdict = progressing(s, message, sync="Synced", after=after)
    return Plan(replace(verdict, reason=seen.reason or verdict.reason, detail=seen.detail))


def _make_way(s: Situation, going: Sequence[ExternalRecord]) -> Plan:
    """An older version is still running."""
    never_started = [
        r
        for r in going
        if r.state is RecordState.INTENDED and isinstance(s.seen(r), Absent) and not s.unseen_for(r)
    ]
    if never_started:
        step = delete(s, never_started[0], "replaced before it started")
        return Plan(progressing(s, "dropping an attempt that never started", after=0), (step,))
    begun = [r for r in going if r.state is RecordState.DELETING]
    if begun or _spec(s).spec.on_change == "replace":
        stopping = going if _spec(s).spec.on_change == "replace" else begun
        return _stop(s, stopping, "stopping the earlier version")
    names = ", ".join(r.wanted.name for r in going)
    return Plan(progressing(s, f"the earlier version is still running ({names}); this one is next"))


def _stop(s: Situation, runs: Sequence[ExternalRecord], message: str) -> Plan:
    """Remove runs; what was asked for before and is there still is asked for again."""
    there = [r for r in runs if isinstance(s.seen(r), Found)]
    steps = [delete(s, r, "replaced") for r in there if not _is_going(s.seen(r))]
    return Plan(progressing(s, message, after=pause_after(s, steps[:1])), tuple(steps))


def _is_going(seen: Observation) -> bool:
    return isinstance(seen, Found) and seen.state is State.DELETING


def _attempt(s: Situation, wanted: Wanted, mine: Sequence[ExternalRecord]) -> Plan:
    spec = _spec(s).spec
    token, generation = s.object.sync_token, s.object.generation
    failures = [r for r in mine if r.sync_token == token and r.generation == generation]
    counted = [r for r in failures if r.attempt_counts]
    if len(counted) > spec.retries or (counted and counted[-1].reason in DECIDED):
        last = counted[-1]
        tries = f" (attempt {len(counted)} of {spec.retries + 1})" if spec.retries else ""
        reason = last.reason or Reason.FAILED
        return Plan(stalled(s, reason, f"{last.message}{tries}", sync="Synced"))
    if len(failures) - len(counted) > INFRASTRUCTURE_RETRIES:
        last = [r for r in failures if not r.attempt_counts][-1]
        reason = last.reason or Reason.INTERRUPTED
        return Plan(stalled(s, reason, last.message, sync="Synced"))
    if failures:
        last = failures[-1]
        assert last.acted_at is not None
        delay = min(RETRY_DELAY * 2 ** (len(failures) - 1), RETRY_DELAY_CAP)
        remaining = delay - (s.now - last.acted_at).total_seconds()
        if remaining > 0:
            verdict = progressing(s, f"{last.message}; the next attempt is due", after=remaining)
            return Plan(replace(verdict, reason=Reason.RETRYING))
    attempt = max((r.attempt for r in mine), default=0) + 1
    named = replace(wanted, name=f"{wanted.name}-a{attempt}")
    message = "not run yet" if attempt == 1 else f"attempt {attempt - 1} failed"
    verdict = progressing(s, f"starting attempt {attempt}", after=0)
    return Plan(verdict, (create(s, named, message, attempt),))
