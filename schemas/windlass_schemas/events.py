"""Events: one CloudEvent 1.0 for each transition of a condition, numbered per object."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Literal

from windlass_schemas.base import Frozen
from windlass_schemas.key import Key
from windlass_schemas.reasons import Reason
from windlass_schemas.status import ConditionType, Health, Sync, Truth

CONDITION_EVENT = "windlass.object.condition.v1"
"""Type of the event that a condition's transition causes."""
DELETED_EVENT = "windlass.object.deleted.v1"
"""Type of the last event of an object: everything that it held is gone or left behind."""
REFUSED_EVENT = "windlass.message.refused.v1"
"""Type of the event that a refused spec message causes, in a stream of its source's own."""
UNREAD = Key("Message", "default", "unread")
"""Subject of such an event when the message does not say what it speaks of."""


class ConditionData(Frozen):
    """What changed, from which state to which."""

    uid: str
    seq: int
    """1, 2, 3, ... per object, without a gap."""
    generation: int
    observed_generation: int
    condition: ConditionType | Literal["Deleted", "Refused"]
    from_status: Truth
    to_status: Truth
    reason: Reason
    message: str
    sync: Sync
    health: Health
    revision: str
    pass_id: str


class CloudEvent(Frozen):
    """The envelope, in the attribute names of CloudEvents 1.0 (structured mode, JSON)."""

    specversion: Literal["1.0"] = "1.0"
    id: str
    """``<uid>:<seq>``."""
    source: str
    """``/windlass/<install id>``."""
    type: str
    subject: str
    """``kind/namespace/name``."""
    time: datetime
    datacontenttype: Literal["application/json"] = "application/json"
    data: ConditionData

    @property
    def routing_key(self) -> str:
        """``windlass.<kind>.<namespace>.<name>.<condition>``, all lower case."""
        return ".".join(("windlass", *self.subject.split("/"), self.data.condition)).lower()


def stream_of(source: str) -> str:
    """The uid of the stream in which the refusals of a message source are numbered."""
    return hashlib.sha256(source.encode()).hexdigest()[:32]
