"""Say how things stand: hop 8, the only author of status. Pure.

A verdict becomes conditions, and each transition becomes one event with the next number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from windlass.plan import Verdict
from windlass.store.base import ExternalRecord, Hold, Object, RecordState
from windlass_schemas import (
    CONDITION_EVENT,
    DELETED_EVENT,
    CloudEvent,
    Condition,
    ConditionData,
    ConditionType,
    ExternalStatus,
    Reason,
    Status,
    Truth,
)


@dataclass(frozen=True)
class Pass:
    """Which pass speaks, and when."""

    id: str
    install: str
    now: datetime


def summarize(
    object_: Object,
    hold: Hold | None,
    verdict: Verdict,
    records: Sequence[ExternalRecord],
    pass_: Pass,
) -> tuple[Status, tuple[CloudEvent, ...]]:
    """The object's new status, and the events that lead to it from the old one.

    The status is the old one itself when nothing has changed. ``hold`` is why the next action waits
    from now on.
    """
    verdict, note = _overlay(object_, verdict)
    conditions = tuple(
        _condition(object_, type_, status, reason, message, pass_.now)
        for type_, status, reason, message in _statements(object_, verdict, note)
    )
    old = object_.status
    status = Status(
        observed_generation=object_.generation,
        sync=verdict.sync,
        health=verdict.health,
        conditions=conditions,
        outputs=old.outputs if verdict.outputs is None else verdict.outputs,
        signature=verdict.signature or old.signature,
        url=verdict.url or old.url,
        detail=verdict.detail,
        externals=tuple(_external(r) for r in records if r.state is not RecordState.GONE),
        attempt=hold.attempt if hold else 0,
        next_attempt_at=hold.until if hold else None,
        handled_sync=object_.sync_token,
    )
    if status == old:
        return old, ()
    changed = [c for c in conditions if _is_transition(old.condition(c.type), c)]
    events = tuple(
        _event(object_, verdict, old.condition(c.type), c, object_.seq + i, pass_)
        for i, c in enumerate(changed, start=1)
    )
    return status, events


def farewell(object_: Object, message: str, pass_: Pass) -> CloudEvent:
    """The last event of an object."""
    data = ConditionData(
        uid=object_.uid,
        seq=object_.seq + 1,
        generation=object_.generation,
        observed_generation=object_.generation,
        condition="Deleted",
        from_status="False",
        to_status="True",
        reason=Reason.DELETING,
        message=message,
        sync="Synced",
        health="Missing",
        revision=object_.revision,
        pass_id=pass_.id,
    )
    return _envelope(object_, DELETED_EVENT, data, pass_)


def _overlay(object_: Object, verdict: Verdict) -> tuple[Verdict, tuple[Reason, str] | None]:
    """What is wrong with the declaration itself, on top of how the last good version stands."""
    if object_.deleting_since is not None:
        return verdict, None
    if object_.conflict:
        reason = Reason.SOURCE_CONFLICT
        message = f"{object_.source} owns it and {object_.conflict} declares it too"
    elif object_.faults:
        reason, message = Reason.INVALID_SPEC, "; ".join(object_.faults)
    elif object_.prune == "awaiting":
        reason = Reason.AWAITING_APPROVAL
        message = f"its document is gone; approve with: windlass delete {object_.key.short}"
    elif object_.prune == "blocked":
        reason = Reason.PRUNE_BLOCKED
        message = "its document is gone with many others; approve with: windlass approve REVISION"
    elif object_.prune == "skipped":
        message = f"its document is gone; remove with: windlass delete {object_.key.short}"
        return replace(verdict, sync="OutOfSync"), (Reason.PRUNE_SKIPPED, message)
    else:
        return verdict, None
    return replace(verdict, sync="OutOfSync", stalled=True), (reason, message)


def _statements(
    object_: Object, verdict: Verdict, note: tuple[Reason, str] | None
) -> list[tuple[ConditionType, Truth, Reason, str]]:
    reason, message = note or (verdict.reason, verdict.message)
    found: list[tuple[ConditionType, Truth, Reason, str]] = [
        ("Ready", verdict.ready, verdict.reason, verdict.message),
        ("Reconciling", _truth(verdict.reconciling), verdict.reason, verdict.message),
        ("Stalled", _truth(verdict.stalled), reason, message),
    ]
    if object_.key.kind in ("Job", "Sweep"):
        found.append(("Succeeded", verdict.ready, verdict.reason, verdict.message))
    return found


def _truth(value: bool) -> Truth:
    return "True" if value else "False"


def _condition(
    object_: Object,
    type_: ConditionType,
    status: Truth,
    reason: Reason,
    message: str,
    now: datetime,
) -> Condition:
    old = object_.status.condition(type_)
    since = old.last_transition_time if old is not None and old.status == status else now
    return Condition(
        type=type_,
        status=status,
        reason=reason,
        message=message,
        observed_generation=object_.generation,
        last_transition_time=since,
    )


def _is_transition(old: Condition | None, new: Condition) -> bool:
    """Whether subscribers hear of it: another truth, another reason, or a newer Ready."""
    if old is None:
        return new.status == "True" or new.type == "Ready"
    if old.status != new.status:
        return True
    if new.status == "False" and new.type != "Ready":
        return False
    renewed = new.type == "Ready" and new.status == "True"
    return old.reason != new.reason or (
        renewed and old.observed_generation != new.observed_generation
    )


def _event(
    object_: Object,
    verdict: Verdict,
    old: Condition | None,
    new: Condition,
    seq: int,
    pass_: Pass,
) -> CloudEvent:
    data = ConditionData(
        uid=object_.uid,
        seq=seq,
        generation=object_.generation,
        observed_generation=new.observed_generation,
        condition=new.type,
        from_status=old.status if old else "Unknown",
        to_status=new.status,
        reason=new.reason,
        message=new.message,
        sync=verdict.sync,
        health=verdict.health,
        revision=object_.revision,
        pass_id=pass_.id,
    )
    return _envelope(object_, CONDITION_EVENT, data, pass_)


def _envelope(object_: Object, type_: str, data: ConditionData, pass_: Pass) -> CloudEvent:
    return CloudEvent(
        id=f"{object_.uid}:{data.seq}",
        source=f"/windlass/{pass_.install}",
        type=type_,
        subject=str(object_.key),
        time=pass_.now,
        data=data,
    )


def _external(record: ExternalRecord) -> ExternalStatus:
    return ExternalStatus(
        role=record.wanted.role,
        name=record.wanted.name,
        external_id=record.external_id or record.wanted.name,
        state=record.state.value,
        attempt=record.attempt,
        digest=record.wanted.digest,
        message=record.message,
    )
