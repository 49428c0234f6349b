"""Plans for objects that are going: everything they hold goes first, in the reverse order."""

from __future__ import annotations

from dataclasses import replace

from windlass.plan.situation import (
    Plan,
    Situation,
    Step,
    Verdict,
    delete,
    last_first,
    pause_after,
    unknown,
)
from windlass.store.base import ExternalRecord, RecordState
from windlass_adapters.base import Absent, State, Unknown
from windlass_schemas import Reason


def plan_deletion(s: Situation) -> Plan:
    """Remove or leave behind what the object holds; ``finalize`` when nothing is left."""
    blocked = _blocked(s)
    if blocked:
        return Plan(_going(s, Reason.DELETION_BLOCKED, blocked, stalled=True, after=s.resync))
    waiting = [str(d.key) for d in s.dependents if d.deleting]
    if waiting:
        message = f"waits until {', '.join(waiting)} is gone"
        return Plan(_going(s, Reason.DELETING, message, after=s.resync))
    policy = s.object.resource.policy
    if policy.on_delete == "orphan" or policy.adopt:  # what was taken over is given back
        records = tuple(replace(r, state=RecordState.ORPHANED) for r in s.object.externals)
        return Plan(_going(s, Reason.DELETING, "left behind"), records=records, finalize=True)
    ready = s.object.status.condition("Ready")
    if ready is not None and ready.status == "True":  # said before it is done, or a crash lies
        return Plan(_going(s, Reason.DELETING, "about to remove what it holds", after=0))
    return _remove(s)


def _blocked(s: Situation) -> str:
    policy = s.object.resource.policy
    if policy.on_delete == "block":
        return "policy.onDelete is block; change the policy first"
    suspended, _ = s.suspension
    if suspended:
        return f"suspended ({suspended}); resume it first: windlass resume"
    users = [str(d.key) for d in s.dependents if not d.deleting]
    if s.object.key.kind == "Target" and users:
        return f"still used by {', '.join(users)}; remove or move those first"
    return ""


def _remove(s: Situation) -> Plan:
    records: list[ExternalRecord] = []
    steps: list[Step] = []
    waiting: Verdict | None = None
    for record in last_first(s.object.externals):
        if waiting is not None and not record.wanted.completes:
            break  # what was made earlier may be in use by what is still going
        seen = s.seen(record)
        what = f"{record.wanted.role} {record.wanted.name}"
        if isinstance(seen, Unknown):
            waiting = replace(unknown(s, seen), ready="False")
        elif isinstance(seen, Absent):
            missing = replace(record, absent_since=record.absent_since or s.now)
            remaining = s.absent_for(missing).total_seconds()
            if remaining > 0:
                records.append(missing)
                message = f"{what} is not seen; looking again"
                waiting = _going(s, Reason.DELETING, message, after=remaining)
            else:
                records.append(replace(record, state=RecordState.GONE))
        elif seen.state is State.DELETING or _asked(s, record):
            waiting = _going(s, Reason.DELETING, f"{what} is being removed")
        else:
            steps.append(delete(s, record, "the object is deleted"))
    if waiting is None:
        after = pause_after(s, steps[:1])
        waiting = _going(s, Reason.DELETING, "removing what it holds", after=after)
    finalize = not steps and all(r.state is RecordState.GONE for r in records)
    finalize = finalize and len(records) == len(s.object.externals)
    return Plan(waiting, tuple(steps), tuple(records), finalize=finalize)


def _asked(s: Situation, record: ExternalRecord) -> bool:
    """Whether we have asked for its removal, and the backend may not show that yet."""
    return record.state is RecordState.DELETING and bool(s.unseen_for(record))


def _going(
    s: Situation,
    reason: Reason,
    message: str,
    *,
    stalled: bool = False,
    after: float | None = None,
) -> Verdict:
    return Verdict(
        ready="False",
        reason=reason,
        message=message,
        sync="OutOfSync",
        health="Unknown",
        requeue_after=s.poll if after is None else after,
        reconciling=not stalled,
        stalled=stalled,
    )
