"""What supervisor and workers say to one another, as JSON over a worker's admin socket."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import TypeAdapter

from windlass.serving.snapshot import Snapshot


@dataclass(frozen=True)
class Stand:
    """How a Deployment stands in one worker. Versions by the digests of their orders."""

    uid: str
    served: str | None = None
    candidate: str | None = None
    """Loaded beside the one in force."""
    pending: str | None = None
    """Being loaded."""
    failed: str | None = None
    message: str = ""
    """Why that failed."""
    lanes: int = 0
    asleep: bool = False
    hung: int = 0
    signature: dict[str, object] | None = None


@dataclass(frozen=True)
class Report:
    """How one worker stands."""

    open: bool
    """Whether it takes connections."""
    stands: dict[str, Stand] = field(default_factory=dict)
    numbers: Snapshot = field(default_factory=Snapshot)


LAST_WORDS = "last.json"
"""In a worker's folder: what it had counted when it ended well."""
REPORT = TypeAdapter(Report)
SNAPSHOT = TypeAdapter(Snapshot)
