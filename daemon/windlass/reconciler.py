"""One pass over one key: hops 4 to 8, in this order and nowhere else.

Load from the store; observe; plan; take at most one mutating action as *intent, lookup, act,
record*; summarize; commit. A pass never waits for a backend: it says when to look again.
"""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import replace

import structlog

from windlass.clock import Clock, utc_now
from windlass.conditions import Pass
from windlass.metrics import ReconcileMetrics
from windlass.outcome import Acted, Draw, Result, conclude, fail, intention
from windlass.plan import Delete, Step, plan
from windlass.priority import Priority
from windlass.reading import Reading
from windlass.situations import Situations
from windlass.store.base import (
    AwayError,
    Claim,
    ExternalRecord,
    ExternalTakenError,
    LeaseLostError,
    Next,
    Object,
    Outcome,
    RecordState,
    Store,
)
from windlass.targets import ElsewhereError, OpenTarget, Targets
from windlass_adapters.base import (
    AdapterError,
    Create,
    Found,
    Owner,
    TerminalError,
    TransientError,
    Unknown,
)
from windlass_schemas import Key, Reason

_log = structlog.get_logger("windlass.reconciler")


def _nothing() -> None:
    """Nobody needs to know."""


class Reconciler:
    """Runs passes. Holds no state of its own: everything is in the store."""

    def __init__(
        self,
        store: Store,
        targets: Targets,
        metrics: ReconcileMetrics,
        clock: Clock = utc_now,
        draw: Draw = random.uniform,
        history: int | None = None,
    ) -> None:
        """``history``: how many earlier runs of a Job stay that does not say it itself."""
        self._metrics = metrics
        self.store = store
        self._targets = targets
        self.clock = clock
        self._draw = draw
        self.situations = Situations(store, targets, clock, history)

    async def reconcile(self, key: Key, decided: Callable[[], None] = _nothing) -> Result:
        """One pass. Raises StoreError when its outcome could not be written.

        ``decided`` is called once only the outcome is left to be written.

        LeaseLostError, which is one, may come before anything was done.
        """
        claim = await self.store.claim(key)
        if claim is None:
            return Result(None)
        pass_ = Pass(uuid.uuid4().hex[:12], self.store.install, self.clock())
        started = time.perf_counter()
        try:
            outcome, result = await self._pass(claim, pass_)
        except ElsewhereError as error:
            await self.store.commit(claim, _untouched(claim.object, error.home))
            return Result(None)
        except AdapterError as error:
            outcome, result = fail(claim.object, error, pass_, self._draw)
        except ExternalTakenError as error:
            taken = TerminalError(str(error), reason=Reason.CONFLICT)
            outcome, result = fail(claim.object, taken, pass_, self._draw)
        except (LeaseLostError, AwayError):
            # Somebody else has the object now, or nobody can say; what was done is in the books.
            raise
        except Exception as error:  # the one broad except: a fault of ours stops one object only
            _log.exception("pass failed unexpectedly", key=str(key), pass_id=pass_.id)
            unexpected = TransientError(
                f"{type(error).__name__}; the log of the daemon has the details",
                reason=Reason.UNEXPECTED,
            )
            outcome, result = fail(claim.object, unexpected, pass_, self._draw)
        decided()
        await self.store.commit(claim, replace(outcome, next=result.next))
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
        if not outcome.externals:
            return
        self._metrics.drift.inc(sum(r.healed[-1:] == (pass_.now,) for r in outcome.externals))
        forgotten = {r.name for r in before.externals if r.state is RecordState.FORGOTTEN}
        gone = {r.name for r in outcome.externals if r.state is RecordState.GONE}
        self._metrics.forgotten.inc(len(forgotten & gone))

    async def _pass(self, claim: Claim, pass_: Pass) -> tuple[Outcome, Result]:
        reading = Reading(self.store)
        situation = await self.situations.of(claim.object, reading)
        decided = plan(situation)
        acted = Acted()
        if decided.steps:
            acted = await self._act(claim, decided.steps[0], pass_, reading)
        return conclude(situation, decided, acted, pass_, self._draw)

    async def _act(self, claim: Claim, step: Step, pass_: Pass, reading: Reading) -> Acted:
        """Take one step. Whatever is killed in here, the intent is there to be looked up by."""
        owner = self.situations.owner(claim.object)
        target = await self._targets.by_id(step.intent.target, reading)
        begins = isinstance(step.action, Create) and step.intent.wanted.completes
        await self.store.intend(
            claim,
            step.intent,
            intention(claim.object, step, pass_),
            through_power_cut=not (begins and target.capabilities.runs_end_with_power),
        )
        started = time.perf_counter()
        try:
            record = await _apply(target, owner, step)
        except AdapterError as error:
            return Acted(step, error=error, duration=time.perf_counter() - started)
        return Acted(step, record=record, duration=time.perf_counter() - started)


async def _apply(target: OpenTarget, owner: Owner, step: Step) -> ExternalRecord:
    """Look up, then act. What the lookup finds is not made again."""
    action, intent = step.action, step.intent
    if isinstance(action, Delete):
        await target.delete(owner, action.external)
        return intent
    found: Found | None = None
    if isinstance(action, Create):
        found = await _held(target, owner, intent)
    if found is None:
        found = await target.apply(owner, action)
    return replace(
        intent, state=RecordState.CREATED, external_id=found.external.external_id, absent_since=None
    )


async def _held(target: OpenTarget, owner: Owner, intent: ExternalRecord) -> Found | None:
    """What the owner holds already of what is to be made. Raises when nobody can tell."""
    if not target.capabilities.by_name:
        name = (intent.wanted.role, intent.wanted.name)
        held = await target.find(owner)
        return next((f for f in held if (f.external.role, f.external.name) == name), None)
    seen = (await target.observe(owner, [intent.external]))[intent.external]
    if isinstance(seen, Unknown):
        raise TransientError(seen.message, reason=seen.reason)
    ours = isinstance(seen, Found) and seen.owner_uid == owner.uid
    return seen if isinstance(seen, Found) and ours else None


def _untouched(object_: Object, home: str) -> Outcome:
    """Nothing was done, since only the daemon on another host can do it: it is due there now."""
    then = Next(after=0.0, priority=Priority.FOLLOW_UP, home=home)
    return Outcome(object_.status, hold=object_.hold, next=then)


def _report(
    object_: Object, outcome: Outcome, result: Result, pass_: Pass, duration: float
) -> None:
    """The pass's one line. A pass that found nothing new is only for those who debug."""
    log, level = _log.bind(), logging.INFO if result.changed or outcome.history else logging.DEBUG
    if not log.is_enabled_for(level):
        return
    ready = outcome.status.condition("Ready")
    log.log(
        level,
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
