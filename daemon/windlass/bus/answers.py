"""The answer to a spec message, as a CloudEvent: the verdict, and the loader's own fault list."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from pydantic import JsonValue

from windlass.store.base import Fault
from windlass.store.inbox import Receipt, Verdict
from windlass_schemas import Key, Reason

ANSWER_EVENT = "windlass.spec.answer.v1"


def answer_body(receipt: Receipt, install: str, message_id: str | None) -> bytes:
    """The answer's body."""
    key = receipt.key
    event: dict[str, JsonValue] = {
        "specversion": "1.0",
        "id": f"answer:{message_id or ''}:{receipt.verdict}",
        "source": f"/windlass/{install}",
        "type": ANSWER_EVENT,
        "time": datetime.now(UTC).isoformat(),
        "datacontenttype": "application/json",
        "data": {
            "verdict": receipt.verdict,
            "key": None if key is None else str(key),
            "uid": receipt.uid,
            "generation": receipt.generation,
            "reason": None if receipt.reason is None else receipt.reason.value,
            "message": receipt.message,
            "faults": [
                {
                    "path": fault.path,
                    "line": fault.line,
                    "column": fault.column,
                    "field": fault.field,
                    "message": fault.message,
                }
                for fault in receipt.faults
            ],
        },
    }
    if key is not None:
        event["subject"] = str(key)
    return json.dumps(event).encode()


@dataclass(frozen=True)
class Answer:
    """An answer as the publisher reads it."""

    verdict: Verdict
    key: Key | None
    uid: str
    generation: int
    reason: Reason | None
    message: str
    faults: tuple[Fault, ...]

    @property
    def ok(self) -> bool:
        """Whether what was said is, or was already, taken over."""
        return not self.faults and self.verdict in (
            "accepted",
            "unchanged",
            "deleting",
            "duplicate",
        )


def read_answer(body: bytes) -> Answer:
    """Read an answer. Raises ValueError for anything else."""
    try:
        data = cast("Mapping[str, JsonValue]", json.loads(body)["data"])
        key, reason = data["key"], data["reason"]
        faults = cast("list[dict[str, JsonValue]]", data["faults"])
        return Answer(
            verdict=cast("Verdict", data["verdict"]),
            key=Key.parse(key) if isinstance(key, str) else None,
            uid=str(data["uid"]),
            generation=int(str(data["generation"])),
            reason=Reason(reason) if isinstance(reason, str) else None,
            message=str(data["message"]),
            faults=tuple(_fault(fault) for fault in faults),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"this is no answer of Windlass: {error}") from error


def _fault(said: Mapping[str, JsonValue]) -> Fault:
    return Fault(
        path=str(said["path"]),
        line=int(str(said["line"])),
        column=int(str(said["column"])),
        field=str(said["field"]),
        message=str(said["message"]),
    )
