"""A run as the kernel reads it, and what a look says of its folder: hop 5. Pure."""

from __future__ import annotations

from pydantic import JsonValue

from windlass_adapters.base import External, Found, State
from windlass_adapters.slurm.jobs import RUN_ROLE
from windlass_adapters.slurm.naming import Place
from windlass_adapters.slurm.outcome import Kind, Verdict
from windlass_adapters.slurm.snapshot import Look, Order
from windlass_schemas import Reason


def order_of(look: Look, place: Place) -> Order | None:
    """What the run's folder says of it, if the look has read that."""
    record = look.records.get(place.token)
    return record.order if record else None


def progressing(
    name: str, uid: str, message: str, reason: Reason | None = None, digest: str | None = None
) -> Found:
    """A run that is not over."""
    return Found(
        external=External(RUN_ROLE, name, name),
        owner_uid=uid,
        state=State.PROGRESSING,
        digest=digest,
        reason=reason,
        message=message,
    )


def ended(name: str, uid: str, verdict: Verdict, order: Order | None) -> Found:
    """A run that is over."""
    bad = verdict.kind is Kind.BAD
    detail: dict[str, JsonValue] = {"job": verdict.job} if verdict.job else {}
    if verdict.exit_code is not None:
        detail["exit_code"] = verdict.exit_code
    return Found(
        external=External(RUN_ROLE, name, name),
        owner_uid=uid,
        state=State.FAILED if bad else State.SUCCEEDED,
        digest=order.digest if order else None,
        reason=verdict.reason if bad else None,
        message=verdict.message,
        attempt_counts=verdict.counts,
        detail=detail,
    )
