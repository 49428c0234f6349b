"""A status event as the kernel makes them, for what stores, carries and shows them."""

from __future__ import annotations

from datetime import UTC, datetime

from windlass_schemas import CONDITION_EVENT, CloudEvent, ConditionData, Key, Reason


def condition_event(uid: str, key: Key, seq: int, at: datetime | None = None) -> CloudEvent:
    """The ``seq``-th event of an object: a run of it is under way."""
    return CloudEvent(
        id=f"{uid}:{seq}",
        source="/windlass/test",
        type=CONDITION_EVENT,
        subject=str(key),
        time=at or datetime(2030, 1, 1, tzinfo=UTC),
        data=ConditionData(
            uid=uid,
            seq=seq,
            generation=1,
            observed_generation=1,
            condition="Ready",
            from_status="Unknown",
            to_status="False",
            reason=Reason.PROGRESSING,
            message="attempt 1 is running",
            sync="Synced",
            health="Progressing",
            revision="0123456789abcdef",
            pass_id="0123456789ab",
        ),
    )
