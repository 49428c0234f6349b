"""What a backend in memory holds, and what a look at it sees of that while lists lag."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from pydantic import JsonValue

from windlass_adapters.base import External, State
from windlass_schemas import Artifact, Reason

START = datetime(2030, 1, 1, tzinfo=UTC)

Name = tuple[str, str]
"""Role and backend id."""
REMEMBERED = 100
"""How many older states there are to be seen."""


@dataclass
class Held:
    """One resource in the backend."""

    external: External
    owner_uid: str
    digest: str
    body: Mapping[str, JsonValue]
    state: State
    outputs: Mapping[str, Artifact] = field(default_factory=dict)
    reason: Reason | None = None
    message: str = ""
    attempt_counts: bool = True
    in_force: str | None = None
    """The digest that still serves while a change is under way."""
    since: datetime = START
    """When its state last changed."""
    looks: int = 0
    """How often it was looked at since."""


@dataclass
class Past:
    """What was held at each change, for looks that see an older state."""

    _states: list[tuple[datetime, int, dict[Name, Held]]] = field(default_factory=list)

    def note(self, now: datetime, looks: int, held: Mapping[Name, Held]) -> None:
        """Remember the state as it is now. ``looks`` is how many there have been by now."""
        self._states.append((now, looks, {name: replace(each) for name, each in held.items()}))
        del self._states[:-REMEMBERED]

    def before(self, at: datetime, looks: int) -> Mapping[Name, Held]:
        """The newest state that is so old, and that so few looks have seen."""
        for noted, seen, held in reversed(self._states):
            if noted <= at and seen <= looks:
                return held
        return {}


def artifact(content: str, name: str) -> Artifact:
    """An artifact of that identity; there are no bytes behind it."""
    data = content.encode()
    return Artifact(digest="sha256:" + hashlib.sha256(data).hexdigest(), size=len(data), name=name)
