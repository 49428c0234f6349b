"""References between specs: each is a dependency by itself, and some carry an artifact along."""

from __future__ import annotations

from typing import NamedTuple

from windlass_schemas.key import Key


class Reference(NamedTuple):
    """One object named by another's spec."""

    key: Key
    """The object that is needed."""
    field: str
    """Where the spec names it, for messages: ``spec.source.job.name``."""
    output: str | None = None
    """Which of its outputs is taken; None where only its being Ready matters."""

    condition: str = "Ready"
    """What must hold of the other object at its current generation."""

    @property
    def slot(self) -> str:
        """The name under which the resolved artifact reaches the adapter."""
        return f"{self.key}:{self.output}"
