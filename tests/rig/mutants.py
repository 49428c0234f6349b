"""Deliberate bugs of the kernel, each a small patch, and the scenario that has to catch it.

A patch replaces a named thing of the real kernel for one telling; nothing else is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from unittest.mock import patch

import windlass.plan as planning
from windlass import dependencies, outcome, reconciler, situations
from windlass.conditions import Pass
from windlass.plan import Blocker, Plan, Situation, Step, deletion, lasting, runs
from windlass.reading import Reading
from windlass.situations import Situations
from windlass.store import books, declaring, recording, rows, takeover
from windlass.store.base import (
    Claim,
    Entry,
    ExternalRecord,
    Hold,
    LeaseLostError,
    Object,
    Outcome,
    RecordState,
    Snapshot,
    Store,
)
from windlass.store.sqlite import SqliteStore
from windlass.store.statements import Transaction
from windlass.targets import OpenTarget
from windlass_adapters.base import (
    Absent,
    AdapterError,
    Create,
    Found,
    Observation,
    Owner,
    TransientError,
    Unknown,
    Wanted,
)
from windlass_adapters.local import starting
from windlass_schemas import Key, Reference

Patches = Sequence[AbstractContextManager[object]]


@dataclass(frozen=True)
class Bug:
    """One thing that somebody could get wrong."""

    name: str
    what: str
    """What the kernel does wrong then, for the table."""
    scenario: str
    """Name of the scenario that catches it."""
    patches: Callable[[], Patches]


# -- intent, lookup, act, record -------------------------------------------------------------------


async def _no_intent(
    self: SqliteStore, claim: Claim, record: ExternalRecord, entry: Entry, **said: bool
) -> None:
    return None


async def _act_first(
    self: reconciler.Reconciler, claim: Claim, step: Step, pass_: Pass, reading: Reading
) -> outcome.Acted:
    owner = self.situations.owner(claim.object)
    target = await self._targets.by_id(step.intent.target, reading)
    try:
        record = await reconciler._apply(target, owner, step)
    except AdapterError as error:
        return outcome.Acted(step, error=error)
    await self.store.intend(claim, step.intent, outcome.intention(claim.object, step, pass_))
    return outcome.Acted(step, record=record)


async def _apply_blindly(target: OpenTarget, owner: Owner, step: Step) -> ExternalRecord:
    action, intent = step.action, step.intent
    if not isinstance(action, Create):
        return await _APPLY(target, owner, step)
    found = await target.apply(owner, action)
    return replace(intent, state=RecordState.CREATED, external_id=found.external.external_id)


_APPLY = reconciler._apply


async def _see_nothing(
    target: OpenTarget, owner: Owner, intended: Sequence[ExternalRecord]
) -> dict[tuple[str, str, str], Observation]:
    return {r.name: Absent() for r in intended}


# -- looking ---------------------------------------------------------------------------------------

_OBSERVE = Situations._observe


async def _unknown_is_absent(
    self: Situations, object_: Object, reading: Reading
) -> Mapping[tuple[str, str, str], Observation]:
    seen = await _OBSERVE(self, object_, reading)
    over = {r.name for r in object_.externals if r.state in situations._OVER}
    return {
        name: Absent() if isinstance(found, Unknown) and name not in over else found
        for name, found in seen.items()
    }


def _believe_at_once(self: Situation, record: ExternalRecord) -> timedelta:
    return timedelta(0)


def _trust_any_look(self: Situation, record: ExternalRecord) -> timedelta:
    return timedelta(0)


def _name_decides(seen: Observation, owner: Owner) -> Observation:
    return seen


# -- the store -------------------------------------------------------------------------------------


async def _no_session(self: SqliteStore, at: Transaction) -> None:
    return None


async def _guard_without_token(at: Transaction, claim: Claim) -> None:
    row = await at.one("guard", uid=claim.object.uid)
    assert row is not None
    if not row["declared"] or (row["seq"] or 0) != claim.object.seq:
        raise LeaseLostError("written by someone else meanwhile")


async def _guard_without_number(at: Transaction, claim: Claim) -> None:
    row = await at.one("guard", uid=claim.object.uid)
    assert row is not None
    if row["token"] != claim.token or not row["declared"]:
        raise LeaseLostError("another daemon has opened this database since")


_COMMIT = SqliteStore.commit


async def _events_afterwards(self: SqliteStore, claim: Claim, outcome_: Outcome) -> None:
    await _COMMIT(self, claim, replace(outcome_, events=()))
    if outcome_.events and not outcome_.finalized:
        again = replace(outcome_, externals=(), history=())
        await _COMMIT(self, claim, again)


async def _finalize_anyway(at: Transaction, claim: Claim) -> None:
    return None


def _forget_hold(hold: Hold | None) -> str | None:
    return None


# -- hop 2 -----------------------------------------------------------------------------------------

_TAKE_OVER = takeover.take_over


def _prune_anyway(
    declared: list[takeover.Declared], snapshot: Snapshot, unchanged: int
) -> takeover.Takeover:
    return _TAKE_OVER(declared, replace(snapshot, faults=()), unchanged)


# -- decisions -------------------------------------------------------------------------------------

_LOOK = runs._look


def _forget_success(s: Situation, record: ExternalRecord) -> ExternalRecord:
    if record.state is RecordState.SUCCEEDED and isinstance(s.seen(record), Absent):
        return replace(record, state=RecordState.GONE)
    return _LOOK(s, record)


_ATTEMPT = runs._attempt


def _count_for_ever(s: Situation, wanted: Wanted, mine: Sequence[ExternalRecord]) -> Plan:
    now = s.object
    same = [replace(r, generation=now.generation, sync_token=now.sync_token) for r in mine]
    return _ATTEMPT(s, wanted, same)


def _count_all(s: Situation, wanted: Wanted, mine: Sequence[ExternalRecord]) -> Plan:
    return _ATTEMPT(s, wanted, [replace(r, attempt_counts=True) for r in mine])


def _any_version_will_do(
    s: Situation, wanted: Wanted, record: ExternalRecord, known: ExternalRecord, found: Found
) -> lasting._Finding:
    return lasting._Finding(record=known, found=found)


async def _shallow_check(
    store: Store, reference: Reference, seen: dict[Key, Object | None], path: tuple[Key, ...]
) -> Blocker | None:
    found = await store.get(reference.key)
    seen[reference.key] = found
    if reference.key.kind == "Target":
        return None
    if found is not None and found.status.is_true(reference.condition, found.generation):
        return None
    return Blocker(reference.key, f"{reference.key} is not {reference.condition}")


async def _check_any_generation(
    store: Store, reference: Reference, seen: dict[Key, Object | None], path: tuple[Key, ...]
) -> Blocker | None:
    found = await store.get(reference.key)
    seen[reference.key] = found
    if reference.key.kind == "Target":
        return None
    condition = found.status.condition(reference.condition) if found is not None else None
    if condition is not None and condition.status == "True":
        return None
    return Blocker(reference.key, f"{reference.key} is not {reference.condition}")


_HOLD_FOR = outcome._hold_for


def _all_is_transient(
    error: AdapterError,
    old: Hold | None,
    key: str,
    when: tuple[object, float],
    draw: outcome.Draw,
) -> Hold:
    return _HOLD_FOR(TransientError(str(error)), old, key, when, draw)  # type: ignore[arg-type]  # passed on


_DELETION = deletion.plan_deletion


def _at_once(s: Situation) -> Plan:
    return _DELETION(replace(s, dependents=()))


def _never_suspended(self: Situation) -> tuple[str, None]:
    return "", None


_P = patch.object
BUGS: tuple[Bug, ...] = (
    Bug(
        "no intent",
        "acts without having written down what it is about to do",
        "killed at every await",
        lambda: [_P(SqliteStore, "intend", _no_intent)],
    ),
    Bug(
        "act before intent",
        "writes the intent after the act",
        "killed at every await",
        lambda: [_P(reconciler.Reconciler, "_act", _act_first)],
    ),
    Bug(
        "no lookup",
        "makes what it had intended again at once, without asking whether it is there",
        "killed at every await",
        lambda: [
            _P(reconciler, "_apply", _apply_blindly),
            _P(situations, "_look_up", _see_nothing),
            _P(Situation, "absent_for", _believe_at_once),
        ],
    ),
    Bug(
        "Unknown is absent",
        "takes a question that failed for the answer that nothing is there",
        "questions fail",
        lambda: [_P(Situations, "_observe", _unknown_is_absent)],
    ),
    Bug(
        "no soak",
        "believes the first absence although lists lag",
        "reply lost while lists lag",
        lambda: [_P(Situation, "absent_for", _believe_at_once)],
    ),
    Bug(
        "any look is believed",
        "takes a state from before its own last act for the state after it",
        "there and back while lists lag",
        lambda: [_P(Situation, "unseen_for", _trust_any_look)],
    ),
    Bug(
        "name decides",
        "takes a resource with the right name and another owner for its own",
        "somebody takes the name",
        lambda: [_P(situations, "_if_ours", _name_decides)],
    ),
    Bug(
        "no token guard",
        "lets a daemon write whose claim is lost",
        "an old daemon goes on",
        lambda: [
            _P(SqliteStore, "_check_session", _no_session),
            _P(books, "guard", _guard_without_token),
        ],
    ),
    Bug(
        "no number guard",
        "lets a pass write over another that ended after it had read",
        "two passes of one key",
        lambda: [_P(books, "guard", _guard_without_number)],
    ),
    Bug(
        "events apart",
        "writes the status first and its events in another transaction",
        "killed at every await",
        lambda: [_P(SqliteStore, "commit", _events_afterwards)],
    ),
    Bug(
        "finalized anyway",
        "removes an object whose document came back during its last pass",
        "declared again in the last pass",
        lambda: [_P(recording, "check_still_going", _finalize_anyway)],
    ),
    Bug(
        "hold forgotten",
        "does not write down how long an error must be waited out",
        "refused for good",
        lambda: [_P(rows, "hold_json", _forget_hold)],
    ),
    Bug(
        "terminal is transient",
        "tries again what no retry can help",
        "refused for good",
        lambda: [_P(outcome, "_hold_for", _all_is_transient)],
    ),
    Bug(
        "pruned by a fault",
        "takes a document that cannot be read for one that is gone",
        "a document breaks",
        lambda: [_P(declaring, "take_over", _prune_anyway)],
    ),
    Bug(
        "no breaker",
        "removes everything that a revision leaves out, however much",
        "a revision leaves most out",
        lambda: [_P(takeover, "BREAKER_COUNT", 1000)],
    ),
    Bug(
        "success forgotten",
        "runs a finished job again because the backend has forgotten the run",
        "the backend forgets",
        lambda: [_P(situations, "_OVER", ()), _P(runs, "_look", _forget_success)],
    ),
    Bug(
        "tries counted for ever",
        "counts the failed tries of an earlier generation for the new one",
        "edited after its last try",
        lambda: [_P(runs, "_attempt", _count_for_ever)],
    ),
    Bug(
        "the machine's fault counts",
        "uses up a job's retries on failures that are not its own",
        "the machine stops",
        lambda: [_P(runs, "_attempt", _count_all)],
    ),
    Bug(
        "Ready for an older generation",
        "calls what lives Ready without comparing it with what is declared now",
        "edited",
        lambda: [_P(lasting, "_examine_live", _any_version_will_do)],
    ),
    Bug(
        "dependencies one deep",
        "asks whether a dependency is Ready and not what that one stands on",
        "a new one on an old base",
        lambda: [_P(dependencies, "_check", _shallow_check)],
    ),
    Bug(
        "dependencies of any generation",
        "takes a dependency that was Ready for its last generation for Ready",
        "edited at the base",
        lambda: [_P(dependencies, "_check", _check_any_generation)],
    ),
    Bug(
        "suspension ignored",
        "acts on an object that somebody has suspended",
        "edited while suspended",
        lambda: [_P(Situation, "suspension", property(_never_suspended))],
    ),
    Bug(
        "removed in any order",
        "removes what others that are going still stand on",
        "all removed at once",
        lambda: [_P(planning, "plan_deletion", _at_once)],
    ),
    Bug(
        "claim not exclusive",
        "starts a run on this machine although another runner has its claim",
        "a run is started twice",
        lambda: [_P(starting, "NURSERY_MODULE", "rig.careless_nursery")],
    ),
)
