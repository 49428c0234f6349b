"""Write what a pass does: the books of hops 7 and 8, inside one transaction of any database."""

from __future__ import annotations

from windlass.store import rows
from windlass.store.base import (
    Claim,
    ExternalRecord,
    ExternalTakenError,
    LeaseLostError,
    Object,
    Outcome,
    RecordState,
    StoreError,
)
from windlass.store.declaring import entry_row
from windlass.store.statements import Transaction

_FORGOTTEN = (RecordState.GONE, RecordState.ORPHANED)
_UNDER_WAY = (RecordState.INTENDED, RecordState.CREATED)


class TakenError(Exception):
    """A value that must be unique is there already."""


def changes_nothing(claim: Claim, outcome: Outcome) -> bool:
    """Whether there is nothing to write."""
    before = claim.object
    more = outcome.externals or outcome.events or outcome.history or outcome.finalized
    if more or outcome.hold != before.hold:
        return False
    return outcome.status is before.status or outcome.status == before.status


async def guard(at: Transaction, claim: Claim) -> None:
    """Refuse a writer whose claim is no longer the newest. Raises LeaseLostError."""
    row = await at.one("guard", uid=claim.object.uid)
    if row is not None and row["token"] != claim.token:
        raise LeaseLostError(f"another daemon has taken {claim.object.key} over; leave it to that")
    if row is None or not row["declared"] or (row["seq"] or 0) != claim.object.seq:
        raise LeaseLostError(f"{claim.object.key} was written by someone else meanwhile")


async def check_still_going(at: Transaction, claim: Claim) -> None:
    """What was declared again while its last pass ran does not go. Raises LeaseLostError."""
    row = await at.one("guard", uid=claim.object.uid)
    if row is None or row["deleting_since"] is None:
        raise LeaseLostError(f"{claim.object.key} was declared again meanwhile")


async def record_outcome(at: Transaction, claim: Claim, outcome: Outcome) -> None:
    """Status, records, events and history of a pass."""
    object_ = claim.object
    for record in outcome.externals:
        await put_record(at, object_, record)
    for entry in outcome.history:
        await at.one("insert_history", **entry_row(entry))
    if outcome.finalized:
        await check_still_going(at, claim)
        await at.one("clear_references", key=str(object_.key))
        await at.one("delete_desired", uid=object_.uid)
    else:
        await at.one(
            "put_object",
            uid=object_.uid,
            status=outcome.status.model_dump_json(),
            hold=rows.hold_json(outcome.hold),
            seq=object_.seq + len(outcome.events),
        )
    if outcome.events:  # last, so that writers wait for one another as briefly as can be
        await at.one("lock_outbox")
    for event in outcome.events:
        await at.one(
            "insert_event", uid=object_.uid, seq=event.data.seq, event=event.model_dump_json()
        )


async def put_record(at: Transaction, owner: Object, record: ExternalRecord) -> None:
    """Our books on one external. Raises StoreError when it is another object's."""
    target, role, name = record.name
    if record.state in _FORGOTTEN:
        await at.one("delete_external", target=target, role=role, name=name, uid=owner.uid)
        return
    over = record.state not in _UNDER_WAY  # its id may come again
    try:
        taken = await at.one(
            "put_external",
            target=target,
            role=role,
            name=name,
            uid=owner.uid,
            external_id=None if over else record.external_id,
            record=rows.record_json(record),
        )
    except TakenError as error:
        raise StoreError(f"{role} {record.external_id} on {target} is taken") from error
    if taken is None:
        raise ExternalTakenError(
            f"{role} {name} on {target} belongs to another object; use another name"
        )
