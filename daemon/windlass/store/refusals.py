"""Say what was refused: an event for each message of hop 2 that did not count."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from windlass.store import rows
from windlass.store.inbox import Receipt, SpecMessage
from windlass.store.statements import Transaction
from windlass_schemas import REFUSED_EVENT, UNREAD, CloudEvent, ConditionData, Reason
from windlass_schemas.events import stream_of


async def tell_refusals(
    at: Transaction,
    told: Sequence[tuple[SpecMessage, Receipt]],
    install: str,
    now: datetime,
) -> None:
    """An event for each refusal, in a stream of its source's own."""
    await at.one("lock_outbox")
    for message, receipt in told:
        uid = stream_of(message.source)
        last = await at.one("last_seq", uid=uid)
        seq = 1 if last is None else rows.number(last, "seq") + 1
        event = _event(message, receipt, uid, seq, install, now)
        await at.one("insert_event", uid=uid, seq=seq, event=event.model_dump_json())


def _event(
    message: SpecMessage, receipt: Receipt, uid: str, seq: int, install: str, now: datetime
) -> CloudEvent:
    return CloudEvent(
        id=f"{uid}:{seq}",
        source=f"/windlass/{install}",
        type=REFUSED_EVENT,
        subject=str(message.key or UNREAD),
        time=now,
        data=ConditionData(
            uid=uid,
            seq=seq,
            generation=0,
            observed_generation=0,
            condition="Refused",
            from_status="Unknown",
            to_status="True",
            reason=receipt.reason or Reason.INVALID_SPEC,
            message=f"message {message.id} of {message.source}: {receipt.message}",
            sync="Unknown",
            health="Unknown",
            revision=str(message.revision),
            pass_id=uuid.uuid4().hex[:12],
        ),
    )
