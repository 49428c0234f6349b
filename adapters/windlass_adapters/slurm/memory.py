"""What this process remembers of runs between two looks: hop 5.

Only how long something has not been seen, and what need not be asked twice; everything else is on
the cluster, and a daemon that begins again has lost nothing by not knowing this.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from windlass_adapters.base import Found, Owner
from windlass_adapters.slurm.naming import Place, place_of
from windlass_adapters.slurm.outcome import LIVE, Evidence
from windlass_adapters.slurm.snapshot import Look, Row
from windlass_adapters.slurm.watch import FORGET

TIDY = 60.0
"""Seconds between two times that what nobody asks for any more is forgotten."""


@dataclass
class Memory:
    """What one has seen of a run so far, on the monotonic clock."""

    asked: float
    submitted: float | None = None
    job: str = ""
    unseen: float | None = None
    """Since when it is not alive in the queue."""
    hopeless: float | None = None
    over: Found | None = None
    """How it ended, once that is known for good."""
    rows: Sequence[Row] = ()
    """The queue's lines that ``alive`` was said of."""
    alive: Found | None = None
    """What was said of it, as long as the queue alone says enough."""


class Memories:
    """Of all runs of one Target."""

    def __init__(self, target: str, lost_after: float) -> None:
        """``lost_after`` is in seconds."""
        self._target = target
        self._lost_after = lost_after
        self._memories: dict[Place, Memory] = {}
        self._places: dict[tuple[Owner, str], Place] = {}
        """Of runs that were asked for."""
        self._names: dict[str, Place] = {}
        """The same, for those who know no more than a run's name."""
        self._tidied = time.monotonic()

    def recall(self, owner: Owner, name: str) -> tuple[Place, Memory]:
        """Where a run lies, and what was seen of it. Somebody asks for it now."""
        place = self._places.get((owner, name))
        if place is None:
            place = self._places[owner, name] = place_of(self._target, owner, name)
            self._names[name] = place
        return place, self.of(place)

    def of(self, place: Place) -> Memory:
        """What was seen of a run. Somebody asks for it now."""
        now = time.monotonic()
        memory = self._memories.get(place)
        if memory is None:
            memory = self._memories[place] = Memory(now)
        memory.asked = now
        return memory

    def named(self, name: str) -> Place | None:
        """Where the run of that name lies, if that is known here."""
        return self._names.get(name)

    def name(self, name: str, place: Place) -> None:
        """The cluster has told where the run of that name lies."""
        self._names[name] = place

    def forget(self, place: Place) -> None:
        """There is no such run any more."""
        self._memories.pop(place, None)

    def forget_old(self) -> None:
        """Forget what nobody has asked for during long."""
        now = time.monotonic()
        if now - self._tidied < TIDY:
            return
        self._tidied = now
        self._memories = {p: m for p, m in self._memories.items() if m.asked > now - FORGET}
        self._places = {who: p for who, p in self._places.items() if p in self._memories}
        self._names = {name: p for name, p in self._names.items() if p in self._memories}

    def evidence(self, place: Place, look: Look) -> Evidence:
        """What a look says of a run, and since when it is not alive there."""
        memory = self._memories.get(place) or self.of(place)
        rows = look.rows_of(place.token, place.job_name)
        alive = any(row.state in LIVE for row in rows)
        memory.unseen = None if alive else memory.unseen or look.taken
        return Evidence(
            rows=rows,
            record=look.records.get(place.token),
            accounts=look.accounts_of(place.token, place.job_name),
            has_accounting=look.has_accounting,
            unseen_for=0.0 if memory.unseen is None else look.taken - memory.unseen,
            lost_after=self._lost_after,
        )
