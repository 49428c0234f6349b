"""``policy``: how Windlass treats an object of any kind. Every field has a safe default."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field, field_validator

from windlass_schemas.base import Frozen
from windlass_schemas.key import Key
from windlass_schemas.scalars import Duration, JsonPointer


class Dependency(Frozen):
    """Another object that must hold a condition before this one is acted on."""

    ref: str
    """``Kind/name`` or ``Kind/namespace/name``."""
    condition: str = "Ready"
    """The condition that must be True at the other object's current generation."""

    @field_validator("ref")
    @classmethod
    def _is_key(cls, value: str) -> str:
        Key.parse(value)
        return value

    @property
    def key(self) -> Key:
        return Key.parse(self.ref)


class Suspend(Frozen):
    """Stop acting on the object; observing goes on."""

    reason: str = Field(min_length=1)
    """Why, for the people who find it suspended."""
    until: datetime | None = None
    """When to resume by itself; never, when absent. Needs a time zone."""

    @field_validator("until", mode="before")
    @classmethod
    def _is_text(cls, value: object) -> object:
        if value is not None and not isinstance(value, str | datetime):
            raise ValueError("must be a time; write for example 2030-01-31T18:00:00Z")
        return value

    @field_validator("until")
    @classmethod
    def _has_zone(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("needs a time zone; write for example 2030-01-31T18:00:00Z")
        return value


class Deadlines(Frozen):
    """How long a state may take before the object counts as Stalled."""

    ready: Duration | None = None
    """From a new generation to Ready."""


class Policy(Frozen):
    """How Windlass treats this object."""

    on_delete: Literal["delete", "orphan", "block"] = "delete"
    """When the object goes: delete what it holds, leave it behind untouched, or refuse to go."""
    prune: Literal["auto", "confirm", "never"] = "auto"
    """When the document vanishes from its source: delete the object, ask first, or keep it."""
    adopt: bool = False
    """Take over what has the name already in the backend and carries no owner, or another one."""
    self_heal: Literal["all", "create-only", "none"] = "all"
    """What to put right when the backend drifts: everything, only what is gone, or nothing."""
    depends_on: tuple[Dependency, ...] = ()
    """Dependencies beyond those that the spec's references already say."""
    ignore: tuple[JsonPointer, ...] = ()
    """Paths whose drift alone never causes a change, for example ``/spec/replicas``."""
    deadlines: Deadlines = Deadlines()
    """Time limits on reaching a state."""
    suspend: Suspend | None = None
    """Stop acting on the object, with the reason and, if wanted, an end."""
