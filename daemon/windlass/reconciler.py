"""One pass over one key: hops 4 to 8, in this order and nowhere else.

Load from the store; observe; plan; take at most one mutating action as *intent, lookup, act,
record*; summarize; commit. A pass never waits for a backend: it says when to look again.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from windlass.clock import Clock, utc_now
from windlass.conditions import Pass, farewell, summarize
from windlass.dependencies import Resolution, resolve
from windlass.metrics import ReconcileMetrics
from windlass.plan import Delete, Dependent, Plan, Situation, Step, Verdict, hold_key, plan
from windlass.store.base import (
    Claim,
    Entry,
    ExternalRecord,
    Hold,
    Object,
    Outcome,
    RecordState,
    Store,
)
from windlass.targets import OpenTarget, Targets
from windlass_adapters.base import (
    Absent,
    AdapterError,
    Capabilities,
    Create,
    Desired,
    Found,
    Observation,
    Owner,
    TerminalError,
    TransientError,
    Unknown,
    Update,
    WaitingError,
    Wanted,
)
from windlass_schemas import Key, Reason, Target, references_of

BACKOFF_BASE = 1.0
BACKOFF_CAP = 300.0
"""Seconds. Full jitter: the delay is drawn from 0 to the exponential bound."""
PROBE_INTERVAL = timedelta(hours=1)
"""How often a terminal error is tried again although nothing has changed."""

_log = structlog.get_logger("windlass.reconciler")

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
    label: str = "success"
    """``success``, ``requeue``, ``requeue_after`` or ``error``, as in controller-runtime."""


@dataclass(frozen=True)
class _Acted:
    """What became of a step."""

    record: ExternalRecord | None = None
    error: AdapterError | None = None
    duration: float = 0.0


class Reconciler:
    """Runs passes. Holds no state of its own: everything is in the store."""

    def __init__(
        self,
        store: Store,
        targets: Targets,
        metrics: ReconcileMetrics,
        clock: Clock = utc_now,
        draw: Draw = random.uniform,
    ) -> None:
        self._metrics = metrics
        self.store = store
        self._targets = targets
        self.clock = clock
        self._draw = draw

    async def reconcile(self, key: Key) -> Result:
        """One pass. Raises StoreError when its outcome could not be written."""
        claim = await self.store.claim(key)
        if claim is None:
            return Result(None)
        pass_ = Pass(uuid.uuid4().hex[:12], self.store.install, self.clock())
        started = time.perf_counter()
        try:
            outcome, result = await self._pass(claim, pass_)
        except AdapterError as error:
            outcome, result = self._failed(claim.object, error, pass_)
        except Exception as error:  # the one broad except: a fault of ours stops one object only
            _log.exception("pass failed unexpectedly", key=str(key), pass_id=pass_.id)
            unexpected = TransientError(
                f"{type(error).__name__}; the log of the daemon has the details",
                reason=Reason.UNEXPECTED,
            )
            outcome, result = self._failed(claim.object, unexpected, pass_)
        await self.store.commit(claim, outcome)
        duration = time.perf_counter() - started
        self._count(claim.object, outcome, result, pass_, duration)
        _report(claim.object, outcome, result, pass_, duration)
        return result

    def _count(
        self, before: Object, outcome: Outcome, result: Result, pass_: Pass, duration: float
    ) -> None:
        self._metrics.total.labels(result.label).inc()
        self._metrics.time.observe(duration)
        if result.label == "error":
            self._metrics.errors.inc()
            if outcome.hold is not None and outcome.hold.terminal:
                self._metrics.terminal_errors.inc()
        generation = before.generation
        was, now = before.status.is_true("Ready", generation), outcome.status
        if now.is_true("Ready", generation) and not was:
            taken = (pass_.now - before.generation_at).total_seconds()
            self._metrics.time_to_ready.observe(max(taken, 0.0))
        self._metrics.drift.inc(sum(r.healed[-1:] == (pass_.now,) for r in outcome.externals))

    async def _pass(self, claim: Claim, pass_: Pass) -> tuple[Outcome, Result]:
        situation = await self.situation(claim.object)
        decided = plan(situation)
        acted = _Acted()
        if decided.steps:
            acted = await self._act(claim, decided.steps[0], pass_)
        return self._conclude(claim.object, situation, decided, acted, pass_)

    # -- hops 4 and 5: what is declared, and what is there -----------------------------------------

    async def situation(self, object_: Object) -> Situation:
        """Everything that a plan needs. Reads only. Raises AdapterError when there is no target."""
        now = self.clock()
        deleting = object_.deleting_since is not None
        resolution = Resolution((), {}) if deleting else await resolve(self.store, object_)
        try:
            target = await self._targets.of(object_)
        except AdapterError:
            if not resolution.blockers:
                raise
            return _without_target(object_, resolution, now)
        wanted: tuple[Wanted, ...] = ()
        refusal = None
        if not deleting:
            wanted, refusal = _wanted(self._owner(object_), object_, target, resolution)
        return Situation(
            object=object_,
            target=target.id,
            wanted=wanted,
            observed=await self._observe(object_),
            capabilities=target.capabilities,
            now=now,
            blockers=resolution.blockers,
            refusal=refusal,
            dependents=await self._dependents(object_) if deleting else (),
            diff=target.adapter.diff,
        )

    def _owner(self, object_: Object) -> Owner:
        return Owner(self.store.install, object_.uid, object_.key)

    async def _dependents(self, object_: Object) -> tuple[Dependent, ...]:
        found = [await self.store.get(key) for key in await self.store.dependents(object_.key)]
        return tuple(Dependent(o.key, o.deleting_since is not None) for o in found if o is not None)

    async def _observe(self, object_: Object) -> dict[tuple[str, str, str], Observation]:
        """An answer for each record; finished runs are not asked for unless they are to go."""
        observed: dict[tuple[str, str, str], Observation] = {}
        by_target: dict[str, list[ExternalRecord]] = {}
        for record in object_.externals:
            over = record.state in (RecordState.SUCCEEDED, RecordState.FAILED)
            if over and object_.deleting_since is None:
                observed[record.name] = Unknown("over; not asked for")
            else:
                by_target.setdefault(record.target, []).append(record)
        for id_, records in by_target.items():
            observed |= await self._observe_target(object_, id_, records)
        return observed

    async def _observe_target(
        self, object_: Object, id_: str, records: Sequence[ExternalRecord]
    ) -> dict[tuple[str, str, str], Observation]:
        owner = self._owner(object_)
        try:
            target = await self._targets.by_id(id_)
        except AdapterError as error:
            return {record.name: Unknown(str(error)) for record in records}
        intended = [r for r in records if r.state is RecordState.INTENDED]
        observed: dict[tuple[str, str, str], Observation] = {}
        if intended:
            observed |= await _look_up(target, owner, intended)
        known = [r for r in records if r.state is not RecordState.INTENDED]
        answers = await target.observe(owner, [r.external for r in known])
        observed |= {r.name: answers[r.external] for r in known}
        return {name: _if_ours(seen, owner) for name, seen in observed.items()}

    # -- hop 7: intent, lookup, act, record --------------------------------------------------------

    async def _act(self, claim: Claim, step: Step, pass_: Pass) -> _Acted:
        """Take one step. Whatever is killed in here, the intent is there to be looked up by."""
        owner = self._owner(claim.object)
        target = await self._targets.by_id(step.intent.target)
        await self.store.intend(claim, step.intent, _entry(claim.object, step, "intended", pass_))
        started = time.perf_counter()
        try:
            record = await _apply(target, owner, step)
        except AdapterError as error:
            return _Acted(error=error, duration=time.perf_counter() - started)
        return _Acted(record=record, duration=time.perf_counter() - started)

    # -- hop 8: summarize --------------------------------------------------------------------------

    def _conclude(
        self, object_: Object, situation: Situation, decided: Plan, acted: _Acted, pass_: Pass
    ) -> tuple[Outcome, Result]:
        hold = self._hold(situation, decided, acted)
        verdict = _verdict(decided.verdict, hold if acted.error else None, situation)
        changes = {record.name: record for record in decided.records}
        if acted.record is not None:
            changes[acted.record.name] = acted.record
        known = {record.name: record for record in object_.externals}
        history = []
        if decided.steps and (acted.record or acted.error):
            result = acted.error.reason.value if acted.error else "ok"
            entry = _entry(object_, decided.steps[0], result, pass_)
            message = str(acted.error) if acted.error else entry.message
            history.append(replace(entry, message=message, duration=acted.duration))
        if decided.finalize:
            return _finalized(object_, tuple(changes.values()), pass_)
        status, events = summarize(
            replace(object_, hold=hold), verdict, tuple((known | changes).values()), pass_
        )
        outcome = Outcome(
            status=status,
            externals=tuple(r for r in changes.values() if known.get(r.name) != r),
            hold=hold,
            events=events,
            history=tuple(history),
        )
        label = "error" if acted.error else "requeue_after" if verdict.requeue_after else "requeue"
        settled = verdict.ready == "True" and not verdict.reconciling and not acted.error
        return outcome, Result(
            requeue_after=verdict.requeue_after,
            changed=status != object_.status,
            label="success" if settled else label,
        )

    def _hold(self, situation: Situation, decided: Plan, acted: _Acted) -> Hold | None:
        """Why the next try must wait; None lifts a hold that has no reason any more."""
        old, key = situation.object.hold, hold_key(situation)
        same = old if old is not None and old.wanted_digest == key else None
        if acted.error is None:
            waiting = same is not None and same.until > situation.now and acted.record is None
            return same if waiting else None
        return self._hold_for(acted.error, same, key, situation.now, situation.poll)

    def _hold_for(
        self, error: AdapterError, old: Hold | None, key: str, now: datetime, poll: float
    ) -> Hold:
        attempt = old.attempt if old else 0
        terminal = isinstance(error, TerminalError)
        if terminal:
            delay = PROBE_INTERVAL
        elif isinstance(error, WaitingError):
            delay = timedelta(seconds=max(poll, 1.0))
        else:
            bound = min(BACKOFF_BASE * 2.0 ** min(attempt, 16), BACKOFF_CAP)
            delay = timedelta(seconds=self._draw(0.0, bound))
        counted = attempt if isinstance(error, WaitingError) else attempt + 1
        return Hold(key, error.reason, str(error), now + delay, counted, terminal)

    def _failed(self, object_: Object, error: AdapterError, pass_: Pass) -> tuple[Outcome, Result]:
        """The pass did not get as far as a plan: say why, keep everything, try again."""
        key = f"pass:{object_.generation}:{object_.sync_token}"
        old = object_.hold if object_.hold and object_.hold.wanted_digest == key else None
        hold = self._hold_for(error, old, key, pass_.now, 5.0)
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
        status, events = summarize(replace(object_, hold=hold), verdict, object_.externals, pass_)
        outcome = Outcome(status=status, hold=hold, events=events)
        return outcome, Result(verdict.requeue_after, status != object_.status, label="error")


def _without_target(object_: Object, resolution: Resolution, now: datetime) -> Situation:
    """Its target is one of the things that are not Ready: nothing can be asked."""
    unasked = Unknown("its target is not Ready")
    return Situation(
        object=object_,
        target="",
        wanted=(),
        observed={record.name: unasked for record in object_.externals},
        capabilities=Capabilities(),
        now=now,
        blockers=resolution.blockers,
    )


def _wanted(
    owner: Owner, object_: Object, target: OpenTarget, resolution: Resolution
) -> tuple[tuple[Wanted, ...], tuple[Reason, str] | None]:
    """What must exist, or why the adapter cannot serve the spec."""
    if resolution.blockers or isinstance(object_.resource, Target):
        return (), None
    desired = Desired(owner, object_.resource, object_.files, resolution.inputs)
    try:
        return target.adapter.normalise(desired), None
    except TerminalError as error:
        return (), (error.reason, str(error))


async def _look_up(
    target: OpenTarget, owner: Owner, intended: Sequence[ExternalRecord]
) -> dict[tuple[str, str, str], Observation]:
    """Ask by owner: we meant to make these, and do not know whether we did."""
    try:
        held = await target.find(owner)
    except AdapterError as error:
        return {record.name: Unknown(str(error)) for record in intended}
    found = {(f.external.role, f.external.name): f for f in held}
    return {r.name: found.get((r.wanted.role, r.wanted.name), Absent()) for r in intended}


def _if_ours(seen: Observation, owner: Owner) -> Observation:
    """The uid decides, not the name: another's is neither ours nor absent."""
    if isinstance(seen, Found) and seen.owner_uid not in (None, owner.uid):
        external = seen.external
        return Unknown(
            f"{external.role} {external.name} belongs to another object"
            f" (uid {seen.owner_uid}); remove that one or use another name"
        )
    return seen


async def _apply(target: OpenTarget, owner: Owner, step: Step) -> ExternalRecord:
    """Look up, then act. What the lookup finds is not made again."""
    action, intent = step.action, step.intent
    if isinstance(action, Delete):
        await target.delete(owner, action.external)
        return intent
    found: Found | None = None
    if isinstance(action, Create):
        name = (action.wanted.role, action.wanted.name)
        held = await target.find(owner)
        found = next((f for f in held if (f.external.role, f.external.name) == name), None)
    if found is None:
        found = await target.apply(owner, action)
    return replace(
        intent, state=RecordState.CREATED, external_id=found.external.external_id, absent_since=None
    )


def _verdict(verdict: Verdict, hold: Hold | None, situation: Situation) -> Verdict:
    """The plan's verdict, unless acting on it failed."""
    if hold is None:
        return verdict
    return replace(
        verdict,
        ready="False",
        reason=hold.reason,
        message=hold.message,
        reconciling=not hold.terminal,
        stalled=hold.terminal,
        requeue_after=max((hold.until - situation.now).total_seconds(), 0.0),
    )


_PAST = {Create: "Created", Update: "Updated", Delete: "Deleted"}


def _entry(object_: Object, step: Step, result: str, pass_: Pass) -> Entry:
    wanted = step.intent.wanted
    return Entry(
        at=pass_.now,
        key=object_.key,
        uid=object_.uid,
        generation=object_.generation,
        revision=object_.revision,
        author=object_.author,
        action=_PAST[type(step.action)],
        result=result,
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
    return outcome, Result(None, changed=True, wake=needed)


def _report(
    object_: Object, outcome: Outcome, result: Result, pass_: Pass, duration: float
) -> None:
    """The pass's one line. A pass that found nothing new is only for those who debug."""
    ready = outcome.status.condition("Ready")
    say = _log.info if result.changed or outcome.history else _log.debug
    say(
        "reconciled",
        key=str(object_.key),
        generation=object_.generation,
        action=outcome.history[0].action if outcome.history else None,
        ready=ready.status if ready else None,
        reason=ready.reason.value if ready else None,
        message=ready.message if ready else None,
        requeue_after=result.requeue_after,
        duration=round(duration, 4),
        pass_id=pass_.id,
    )
