"""Plans to forget earlier runs: of those that are over, the newest stay.

Forgetting removes a run from its backend, with its log, and from our books. It is done when nothing
else is to be done, and whatever becomes of it says nothing about the object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pydantic import JsonValue

from windlass.plan.situation import Plan, Situation, delete, pause_after
from windlass.store.base import ExternalRecord, Object, RecordState
from windlass_adapters.base import Found, Wanted
from windlass_schemas import Job, Sweep

_OVER = (RecordState.SUCCEEDED, RecordState.FAILED)


def limit_of(object_: Object, default: int | None) -> int | None:
    """How many earlier runs of an object stay; None for all."""
    resource = object_.resource
    if isinstance(resource, Job | Sweep) and resource.spec.history is not None:
        return resource.spec.history
    return default


def names_in(record: ExternalRecord) -> Iterator[str]:
    """Every text in what an object holds: digests and addresses of what it uses are among them."""
    yield from _texts(dict(record.wanted.body))
    for artifact in record.outputs.values():
        yield artifact.digest
        yield artifact.url or ""


def forget(s: Situation, wanted: Wanted, runs: Sequence[ExternalRecord], result: Plan) -> Plan:
    """Add the removal of one run, the oldest first, to a plan in which nothing is to be done."""
    left = [
        r for r in runs if r.state is RecordState.FORGOTTEN and isinstance(s.seen(r), Found)
    ] or [r for r in _spare(s, wanted, runs) if not _is_used(s, r)]
    if not left:
        return result
    step = delete(s, left[0], f"older than the {s.history} that are kept")
    step = replace(step, intent=replace(step.intent, state=RecordState.FORGOTTEN))
    after = min(result.verdict.requeue_after, pause_after(s, [step]))
    verdict = replace(result.verdict, requeue_after=after)
    return replace(result, verdict=verdict, steps=(step,), aside=True)


def _spare(
    s: Situation, wanted: Wanted, runs: Sequence[ExternalRecord]
) -> Sequence[ExternalRecord]:
    """Past the limit, the oldest first; the newest of all is not counted.

    Never one of what is declared now: its failures count, and its outputs are in force.
    """
    if s.history is None:
        return ()
    over = [r for r in runs if r.state in _OVER]
    over.sort(key=lambda r: (r.generation, r.attempt))
    spare = over[: max(len(over) - 1 - s.history, 0)]
    return [r for r in spare if (r.wanted.digest, r.target) != (wanted.digest, s.target)]


def _is_used(s: Situation, record: ExternalRecord) -> bool:
    """Whether something that takes from this object holds what the run has made."""
    made = {name for a in record.outputs.values() for name in (a.digest, a.url) if name}
    return not made.isdisjoint(s.in_use)


def _texts(value: JsonValue) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from _texts(inner)
        case list():
            for inner in value:
                yield from _texts(inner)
