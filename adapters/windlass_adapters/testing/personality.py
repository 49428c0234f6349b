"""How a backend names what it holds, and what it remembers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class Personality:
    """How a backend names and remembers."""

    name: str
    deterministic: bool = True
    """Whether we choose the names; otherwise the backend gives ids and two creates make two."""
    claims: bool = False
    """Whether a second create of one name has no effect: a client token, or a job that claims its
    name when it starts and else ends at once."""
    purge_after: timedelta | None = None
    """How long after its end a run is still listed. Its id may be given again then; what the run
    itself has written at its end stays."""


DETERMINISTIC = Personality("deterministic")
SERVER_CHOSEN = Personality("server-chosen", deterministic=False)
SLURM_LIKE = Personality(
    "slurm-like", deterministic=False, claims=True, purge_after=timedelta(minutes=5)
)
PERSONALITIES = (DETERMINISTIC, SERVER_CHOSEN, SLURM_LIKE)
