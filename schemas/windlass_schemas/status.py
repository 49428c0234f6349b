"""``status``: what was found and done. Written by one author, ``windlass.conditions``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from windlass_schemas.base import Frozen
from windlass_schemas.reasons import Reason
from windlass_schemas.scalars import Digest

Truth = Literal["True", "False", "Unknown"]
ConditionType = Literal["Ready", "Reconciling", "Stalled", "Succeeded"]
Sync = Literal["Synced", "OutOfSync", "Unknown"]
Health = Literal["Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown"]


class Condition(Frozen):
    """One statement about an object, true or not at a generation."""

    type: ConditionType
    status: Truth
    reason: Reason
    message: str
    observed_generation: int
    last_transition_time: datetime
    """When ``status`` last changed; a new reason or message alone does not move it."""


class Artifact(Frozen):
    """A file with an identity, held in the artifact store or in a backend."""

    digest: Digest
    size: int
    """Bytes."""
    name: str
    """The file name that it had where it was made."""
    format: str | None = None
    """The format of a Model's artifact, where that is known."""
    url: str | None = None
    """Where it lies in a backend. What lies only there is known by its address and version."""
    text: str | None = None
    """What is in it, when that is small and meant to be read by other specs."""


class Tensor(Frozen):
    """One input or output of a model, in the words of the Open Inference Protocol."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """-1 stands for any size."""


class Signature(Frozen):
    """What a model takes and gives."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class ExternalStatus(Frozen):
    """A resource that the object holds in a backend."""

    role: str
    name: str
    external_id: str
    state: str
    attempt: int = 1
    digest: Digest | None = None
    message: str = ""


class Status(Frozen):
    """Everything that is known of an object, beside what was declared."""

    observed_generation: int = 0
    """The newest generation that a pass has looked at."""
    sync: Sync = "Unknown"
    """Whether the backend holds what was declared."""
    health: Health = "Unknown"
    """Whether what the backend holds works."""
    conditions: tuple[Condition, ...] = ()
    outputs: Mapping[str, Artifact] = {}
    """What other objects can take from this one."""
    signature: Signature | None = None
    """Inputs and outputs of a Model's artifact."""
    url: str | None = None
    """Where a Deployment answers."""
    detail: Mapping[str, JsonValue] = {}
    """What the adapter has to say beyond that."""
    externals: tuple[ExternalStatus, ...] = ()
    attempt: int = 0
    """Failed tries in a row of the current action."""
    next_attempt_at: datetime | None = None
    """When the next try is due."""
    handled_sync: str | None = None
    """The token of the last ``windlass sync`` that a pass has answered."""

    def condition(self, type_: str) -> Condition | None:
        """The condition of that type, if the object has it."""
        for condition in self.conditions:  # asked ten times a pass: a generator takes twice as long
            if condition.type == type_:
                return condition
        return None

    def is_true(self, type_: str, generation: int) -> bool:
        """Whether the condition holds at that very generation."""
        found = self.condition(type_)
        return (
            found is not None and found.status == "True" and found.observed_generation == generation
        )
