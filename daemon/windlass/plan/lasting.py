"""Plans for what is meant to last: artifacts, servers, endpoints.

Wanted externals are made in their order, each one settled before the next; what is no longer wanted
goes in the reverse order, and only when everything wanted lives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from windlass.plan.situation import (
    Plan,
    Situation,
    Step,
    Verdict,
    create,
    delete,
    last_first,
    pause_after,
    progressing,
    stalled,
    unknown,
    update,
)
from windlass.store.base import ExternalRecord, RecordState
from windlass_adapters.base import Absent, Change, Found, State, Unknown, Wanted
from windlass_schemas import Health, Reason

HEALS_BEFORE_FIGHT = 3
"""Self-heals in the window before it counts as a fight."""
FIGHT_WINDOW = timedelta(minutes=10)
FIGHT_DELAY = 60.0
"""Seconds between self-heals in a fight; doubles with each, up to five minutes."""
FIGHT_DELAY_CAP = 300.0
TRY_AGAIN = 300.0
"""Seconds until what failed for want of capacity is tried once more."""


@dataclass(frozen=True)
class _Finding:
    """What one wanted external needs: a step, a wait, or nothing."""

    verdict: Verdict | None = None
    step: Step | None = None
    record: ExternalRecord | None = None
    """A correction to our books."""
    found: Found | None = None


def plan_lasting(s: Situation, wanted: tuple[Wanted, ...]) -> Plan:
    """Compare wanted with recorded and observed, and say what comes next."""
    records: list[ExternalRecord] = []
    settled: list[Found] = []
    for item in wanted:
        finding = _examine(s, item, s.record_of(item))
        if finding.record is not None:
            records.append(finding.record)
        if finding.verdict is not None:
            verdict = _describe(finding.verdict, finding.found)
            steps: list[Step] = []
            if finding.step is not None:
                intent = replace(finding.step.intent, rank=wanted.index(item))
                steps = [replace(finding.step, intent=intent), *_later(s, item, wanted)]
            return Plan(verdict, tuple(steps), tuple(records))
        assert finding.found is not None
        settled.append(finding.found)
    return _remove_leftovers(s, wanted, settled, records)


def _later(s: Situation, item: Wanted, wanted: tuple[Wanted, ...]) -> list[Step]:
    """What comes after in the order and is not there: shown by ``windlass plan``."""
    after = wanted[wanted.index(item) + 1 :]
    return [create(s, w, "not there yet") for w in after if s.record_of(w) is None]


def _examine(s: Situation, wanted: Wanted, record: ExternalRecord | None) -> _Finding:
    if record is None:
        step = create(s, wanted, "not there yet")
        return _Finding(progressing(s, f"making {wanted.role} {wanted.name}", after=0), step)
    seen = s.seen(record)
    if isinstance(seen, Unknown):
        return _Finding(unknown(s, seen))
    if record.state is RecordState.RETIRED and _is_unchanged(s, wanted, record):
        return _stay_down(s, record, seen)
    unseen = s.unseen_for(record).total_seconds()
    if unseen > 0:
        return _unseen(s, record, seen, unseen)
    if isinstance(seen, Absent):
        return _examine_absent(s, wanted, record)
    if seen.retire and record.state is RecordState.CREATED and _is_unchanged(s, wanted, record):
        return _stay_down(s, replace(record, message=seen.retire), seen)
    known = _seen_there(record, seen)
    match seen.state:
        case State.DELETING:
            return _Finding(progressing(s, f"{wanted.role} {wanted.name} is being removed"))
        case State.PROGRESSING:
            return _examine_progressing(s, wanted, known, seen)
        case State.FAILED | State.SUCCEEDED:
            return _examine_failed(s, wanted, known, seen)
        case State.LIVE | State.DEGRADED:
            return _examine_live(s, wanted, record, known, seen)


def _is_unchanged(s: Situation, wanted: Wanted, record: ExternalRecord) -> bool:
    """Whether nothing was declared or asked for since the record was written."""
    return (record.wanted, record.sync_token) == (wanted, s.object.sync_token)


def _stay_down(s: Situation, record: ExternalRecord, seen: Found | Absent) -> _Finding:
    """Its time is over: take it down, and leave it down until somebody wants it again."""
    why = f"taken down: {record.message}; edit the spec or windlass sync to have it again"
    if isinstance(seen, Absent):
        return _Finding(stalled(s, Reason.COST_LIMIT_EXCEEDED, why, health="Missing"))
    step = delete(s, record, record.message)
    step = replace(step, intent=replace(step.intent, state=RecordState.RETIRED))
    verdict = progressing(s, f"taking it down: {record.message}")
    going = seen.state is State.DELETING
    return _Finding(verdict, None if going else step, found=seen)


def _unseen(s: Situation, record: ExternalRecord, seen: Found | Absent, after: float) -> _Finding:
    """What the backend shows may be from before our last act: neither gone, nor done, nor drift."""
    message = f"{record.wanted.role} {record.wanted.name} was changed just now; looking again"
    if isinstance(seen, Absent):
        missing = replace(record, absent_since=record.absent_since or s.now)
        return _Finding(progressing(s, message, after=after), record=missing)
    health: Health = "Healthy" if seen.digest else "Progressing"
    return _Finding(progressing(s, message, health=health, after=after), found=seen)


def _examine_absent(s: Situation, wanted: Wanted, record: ExternalRecord) -> _Finding:
    missing = replace(record, absent_since=record.absent_since or s.now)
    remaining = s.absent_for(missing).total_seconds()
    if record.state in (RecordState.INTENDED, RecordState.DELETING, RecordState.RETIRED):
        if remaining > 0:
            verdict = progressing(
                s, f"{wanted.role} {wanted.name} is not seen; looking again", after=remaining
            )
            return _Finding(verdict, record=missing)
        step = create(s, wanted, "not there yet")
        return _Finding(progressing(s, f"making {wanted.role} {wanted.name}", after=0), step)
    what = f"{wanted.role} {wanted.name} is gone from the backend"
    if remaining > 0:
        verdict = progressing(s, f"{what}; looking again", health="Missing", after=remaining)
        return _Finding(verdict, record=missing)
    if s.object.resource.policy.self_heal == "none":
        verdict = stalled(s, Reason.DRIFTED, f"{what}; selfHeal: none", health="Missing")
        return _Finding(verdict, record=missing)
    step = create(s, wanted, "gone from the backend")
    return _heal(s, record, step, what, "Missing")


def _examine_progressing(
    s: Situation, wanted: Wanted, record: ExternalRecord, found: Found
) -> _Finding:
    coming = found.pending_digest or record.wanted.digest
    health: Health = "Healthy" if found.digest else "Progressing"
    if coming == wanted.digest or not s.capabilities.preempts:
        message = found.message or f"{wanted.role} {wanted.name} is changing"
        verdict = progressing(s, message, health=health)
        return _Finding(verdict, record=_created(record), found=found)
    step = update(s, record, wanted, "changed before the last change was done")
    return _Finding(progressing(s, step.message, health=health, after=0), step, found=found)


def _examine_failed(s: Situation, wanted: Wanted, record: ExternalRecord, found: Found) -> _Finding:
    tried = record.wanted.digest == wanted.digest and record.sync_token == s.object.sync_token
    step = delete(s, record, "failed; made anew")
    if tried and record.state is not RecordState.DELETING:
        if not found.attempt_counts:
            return _later_again(s, record, found, step, "Missing")
        reason = found.reason or Reason.BACKEND_REFUSED
        return _Finding(stalled(s, reason, found.message), record=_created(record), found=found)
    message = f"replacing failed {wanted.role} {wanted.name}"
    return _Finding(progressing(s, message, after=pause_after(s, [step])), step)


def _examine_live(
    s: Situation, wanted: Wanted, record: ExternalRecord, known: ExternalRecord, found: Found
) -> _Finding:
    tried = record.wanted.digest == wanted.digest and record.sync_token == s.object.sync_token
    if found.digest != wanted.digest:
        if tried and found.failed_digest == wanted.digest:
            if found.repair:
                step = update(s, known, wanted, found.repair)
                return _Finding(_repairing(s, found), step, found=found)
            if not found.attempt_counts:
                again = update(s, known, wanted, "there may be capacity now")
                return _later_again(s, known, found, again, "Healthy")
            reason = found.reason or Reason.UPDATE_FAILED
            verdict = stalled(s, reason, found.message, health="Healthy")
            return _Finding(verdict, record=_created(known), found=found)
        if not tried or record.state is RecordState.INTENDED:
            step = update(s, known, wanted, "the spec has changed")
            verdict = progressing(
                s, f"updating {wanted.role} {wanted.name}", health="Healthy", after=0
            )
            return _Finding(verdict, step, found=found)
        changes: tuple[Change, ...] = (Change("/digest", found.digest, wanted.digest),)
    else:
        changes = s.diff(wanted, found)
        if changes and not (tried and record.wanted.body == wanted.body):
            fields = ", ".join(f"{c.path}: {c.held!r} -> {c.wanted!r}" for c in changes)
            step = update(s, known, wanted, f"the spec has changed: {fields}", changes)
            return _Finding(progressing(s, step.message, health="Healthy", after=0), step)
    drift = tuple(c for c in changes if not is_ignored(c.path, s.object.resource.policy.ignore))
    if not drift:
        if found.state is State.DEGRADED:
            return _Finding(_degraded(s, found), record=_created(known), found=found)
        made = _created(known)
        return _Finding(
            record=made if made.wanted == wanted else replace(made, wanted=wanted), found=found
        )
    fields = ", ".join(f"{c.path}: {c.held!r} instead of {c.wanted!r}" for c in drift)
    message = f"{wanted.role} {wanted.name} was changed from outside: {fields}"
    if s.object.resource.policy.self_heal != "all":
        return _Finding(stalled(s, Reason.DRIFTED, message, health="Healthy"), found=found)
    step = update(s, known, wanted, f"changed from outside: {fields}", drift)
    return _heal(s, known, step, message, "Healthy")


def _later_again(
    s: Situation, record: ExternalRecord, found: Found, step: Step, health: Health
) -> _Finding:
    """It failed for a reason that passes by itself: wait, then try once more."""
    since = s.now - (record.acted_at or s.now)
    remaining = TRY_AGAIN - since.total_seconds()
    if remaining <= 0:
        return _Finding(progressing(s, step.message, health=health, after=0), step, found=found)
    verdict = progressing(s, found.message, health=health, after=remaining)
    verdict = replace(verdict, reason=found.reason or Reason.WAITING)
    return _Finding(verdict, record=_created(record), found=found)


def _heal(
    s: Situation, record: ExternalRecord, step: Step, message: str, health: Health
) -> _Finding:
    """Put it right, unless something keeps undoing that: then ever more slowly."""
    recent = tuple(t for t in record.healed if s.now - t < FIGHT_WINDOW)
    if len(recent) >= HEALS_BEFORE_FIGHT:
        rounds = len(recent) - HEALS_BEFORE_FIGHT
        delay = min(FIGHT_DELAY * 2**rounds, FIGHT_DELAY_CAP)
        remaining = delay - (s.now - recent[-1]).total_seconds()
        if remaining > 0:
            text = f"{message}; put right {len(recent)} times in ten minutes and undone each time"
            verdict = stalled(s, Reason.DRIFT_FIGHT, text, health=health, after=remaining)
            return _Finding(verdict, record=replace(record, healed=recent))
    healing = replace(step.intent, healed=(*recent, s.now))
    verdict = progressing(s, message, health=health, after=0)
    return _Finding(verdict, replace(step, intent=healing))


def _repairing(s: Situation, found: Found) -> Verdict:
    """The change has failed, and what it left behind is put right."""
    verdict = progressing(s, found.repair, health="Degraded", after=0)
    return replace(verdict, reason=found.reason or Reason.UPDATE_FAILED)


def _degraded(s: Situation, found: Found) -> Verdict:
    reason = found.reason or Reason.BACKEND_UNAVAILABLE
    verdict = stalled(s, reason, found.message, sync="Synced", after=s.poll)
    return replace(verdict, stalled=False, reconciling=True)


def _seen_there(record: ExternalRecord, found: Found) -> ExternalRecord:
    """Our books once it was seen. Most passes find nothing new, and write no new books."""
    id_ = found.external.external_id
    if record.external_id == id_ and record.absent_since is None:
        return record
    return replace(record, external_id=id_, absent_since=None)


def _created(record: ExternalRecord) -> ExternalRecord:
    created = record.state is RecordState.CREATED
    return record if created else replace(record, state=RecordState.CREATED)


def is_ignored(path: str, pointers: tuple[str, ...]) -> bool:
    """Whether a pointer names that field or one above it. A bare ``/`` names nothing."""
    fields = [stripped for p in pointers if (stripped := p.rstrip("/"))]
    return any(path == field or path.startswith(field + "/") for field in fields)


def leftovers(s: Situation, wanted: tuple[Wanted, ...]) -> Plan:
    """Removes what lasts and is no longer wanted, and looks at nothing else."""
    return _remove_leftovers(s, wanted, [], [])


def _remove_leftovers(
    s: Situation, wanted: tuple[Wanted, ...], settled: list[Found], records: list[ExternalRecord]
) -> Plan:
    names = {(s.target, w.role, w.name) for w in wanted}
    steps: list[Step] = []
    waiting = ""
    for record in last_first(s.object.externals):
        if record.name in names or record.wanted.completes:
            continue
        if waiting:  # what was made earlier may be in use by what is still going
            break
        seen = s.seen(record)
        if isinstance(seen, Absent):
            missing = replace(record, absent_since=record.absent_since or s.now)
            if s.absent_for(missing) > timedelta(0):
                waiting = f"{record.wanted.role} {record.wanted.name} is not seen; looking again"
            else:
                missing = replace(missing, state=RecordState.GONE)
            records.append(missing)
        elif isinstance(seen, Unknown):
            waiting = seen.message
        elif seen.state is State.DELETING or (
            record.state is RecordState.DELETING and s.unseen_for(record)
        ):
            waiting = f"{record.wanted.role} {record.wanted.name} is being removed"
        else:
            steps.append(delete(s, record, "no longer wanted"))
    if steps:
        after = pause_after(s, steps[:1])
        verdict = progressing(s, "removing what is no longer wanted", health="Healthy", after=after)
    elif waiting:
        verdict = progressing(s, waiting, health="Healthy")
    else:
        verdict = Verdict(
            ready="True",
            reason=Reason.SYNCED,
            message=next((f.message for f in settled if f.message), "as declared"),
            sync="Synced",
            health="Healthy",
            requeue_after=s.resync,
        )
    for found in settled:
        verdict = _describe(verdict, found)
    return Plan(verdict, tuple(steps), tuple(records))


def _describe(verdict: Verdict, found: Found | None) -> Verdict:
    """Add what the backend tells of itself."""
    if found is None:
        return verdict
    return replace(
        verdict,
        outputs={**(verdict.outputs or {}), **found.outputs} or verdict.outputs,
        signature=found.signature or verdict.signature,
        url=found.url or verdict.url,
        detail={**verdict.detail, **found.detail},
    )
