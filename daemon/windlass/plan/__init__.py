"""Decide: hop 6. ``plan`` is pure; ``windlass plan`` prints the very steps that apply takes.

Unknown is never absent, a finished run stays finished, and what was last applied is kept alive
while something that the object needs is not Ready.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from pydantic import JsonValue

from windlass.plan.deletion import plan_deletion
from windlass.plan.lasting import plan_lasting
from windlass.plan.runs import plan_runs
from windlass.plan.situation import (
    Action,
    Blocker,
    Delete,
    Dependent,
    Plan,
    Situation,
    Step,
    Verdict,
    last_first,
    stalled,
)
from windlass.store.base import RecordState
from windlass_adapters.base import Wanted
from windlass_schemas import Reason, digest_of

__all__ = [
    "Action",
    "Blocker",
    "Delete",
    "Dependent",
    "Plan",
    "Situation",
    "Step",
    "Verdict",
    "hold_key",
    "plan",
]

DELETION = "deletion"


def plan(situation: Situation) -> Plan:
    """What to do next about one object, and how it stands."""
    if situation.object.deleting_since is not None:
        return _held(situation, plan_deletion(situation))
    result = _planned(situation)
    result = _held(situation, result)
    result = _suspended(situation, result)
    return _past_deadline(situation, result)


def hold_key(situation: Situation) -> str:
    """Names the set of actions that a hold is about; a change of input gives another key."""
    if situation.object.deleting_since is not None:
        return digest_of([DELETION, situation.object.sync_token])
    # The body too: it also says what does not decide the result, and may be why it was refused.
    wanted: list[JsonValue] = [[w.digest, dict(w.body)] for w in situation.wanted]
    return digest_of([*wanted, situation.target, situation.object.sync_token])


def _planned(s: Situation) -> Plan:
    completing = [w for w in s.wanted if w.completes]
    runs = completing or any(r.wanted.completes for r in s.object.externals)
    if s.refusal is not None:
        return _refused(s, plan_runs(s, None) if runs else plan_lasting(s, _last_applied(s)))
    if not s.blockers:
        needs = tuple(w for w in s.wanted if not w.completes)
        return plan_runs(s, completing[0], needs) if completing else plan_lasting(s, needs)
    result = plan_runs(s, None) if runs else plan_lasting(s, _last_applied(s))
    return _blocked(s, result)


def _last_applied(s: Situation) -> tuple[Wanted, ...]:
    return tuple(
        r.wanted
        for r in reversed(last_first(s.object.externals))
        if r.target == s.target and r.state in (RecordState.CREATED, RecordState.INTENDED)
    )


def _blocked(s: Situation, result: Plan) -> Plan:
    """Something that it needs is not Ready: keep what there is, and wait."""
    cycle = any(b.cycle for b in s.blockers)
    holding = bool(_last_applied(s))
    verdict = replace(
        result.verdict,
        ready="False",
        reason=Reason.DEPENDENCY_CYCLE if cycle else Reason.DEPENDENCY_NOT_READY,
        message="; ".join(b.message for b in s.blockers),
        sync="OutOfSync",
        health=result.verdict.health if holding else "Missing",
        reconciling=not cycle,
        stalled=cycle,
    )
    kept = tuple(step for step in result.steps if not isinstance(step.action, Delete))
    return replace(result, verdict=verdict, steps=kept)


def _refused(s: Situation, result: Plan) -> Plan:
    """The adapter cannot serve the spec: keep what there is, until it changes."""
    assert s.refusal is not None
    reason, message = s.refusal
    health = result.verdict.health if _last_applied(s) else "Missing"
    kept = tuple(step for step in result.steps if not isinstance(step.action, Delete))
    return replace(result, verdict=stalled(s, reason, message, health=health), steps=kept)


def _held(s: Situation, result: Plan) -> Plan:
    """Leave out the steps while the last try of the very same ones is too fresh."""
    hold = s.object.hold
    if hold is None or not result.steps:
        return result
    if hold.wanted_digest != hold_key(s) or hold.until <= s.now:
        return result
    after = (hold.until - s.now).total_seconds()
    if result.aside:
        sooner = min(result.verdict.requeue_after, after)
        return result.without_steps(replace(result.verdict, requeue_after=sooner))
    return result.without_steps(
        replace(
            result.verdict,
            ready="False",
            reason=hold.reason,
            message=hold.message,
            reconciling=not hold.terminal,
            stalled=hold.terminal,
            requeue_after=after,
        )
    )


def _suspended(s: Situation, result: Plan) -> Plan:
    """Do nothing, say why, and leave the truth about Ready as it is."""
    reason, until = s.suspension
    if not reason:
        return result
    end = f" until {until.isoformat()}" if until else ""
    verdict = replace(
        result.verdict,
        reason=Reason.SUSPENDED,
        message=f"suspended{end}: {reason}",
        health="Suspended",
        reconciling=False,
        requeue_after=_sooner(
            result.verdict.requeue_after or s.poll, until - s.now if until else None
        ),
    )
    return result.without_steps(verdict)


def _past_deadline(s: Situation, result: Plan) -> Plan:
    deadline = s.object.resource.policy.deadlines.ready
    if deadline is None or result.verdict.ready == "True" or result.verdict.stalled:
        return result
    remaining = s.object.generation_at + deadline - s.now
    if remaining > timedelta(0):
        after = _sooner(result.verdict.requeue_after, remaining)
        return replace(result, verdict=replace(result.verdict, requeue_after=after))
    message = f"not Ready within {deadline}: {result.verdict.message}"
    late = stalled(s, Reason.DEADLINE_EXCEEDED, message, health=result.verdict.health)
    late = replace(
        late,
        sync=result.verdict.sync,
        reconciling=result.verdict.reconciling,
        requeue_after=result.verdict.requeue_after,
    )
    return replace(result, verdict=late)


def _sooner(seconds: float, other: timedelta | None) -> float:
    return seconds if other is None else min(seconds, max(other.total_seconds(), 0.0))
