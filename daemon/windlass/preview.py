"""What a set of specs would change: the values that ``windlass plan`` prints (hop 6, early)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from windlass.settings import Settings
from windlass_schemas import Key

Verb = Literal["create", "run", "update", "delete", "wait", "keep"]


@dataclass(frozen=True)
class Preview:
    """What would happen to one object."""

    key: Key
    verb: Verb
    target: str
    """Where: the Target's name."""
    details: tuple[str, ...] = ()
    """One line for each thing that would differ, for example ``/spec/model: a -> b``."""
    note: str = ""
    """Why, or what it waits for."""


async def preview(path: Path | None, *, worktree: bool, settings: Settings) -> Sequence[Preview]:
    """Compare the specs at ``path`` with what is recorded; without a path, what is declared now."""
    raise NotImplementedError
