"""The roster port: the daemons that share one store, and how they share its work (hops 3 and 7).

Each daemon takes what is due and holds it by a lease until its pass is written. A lease is good as
long as its daemon is alive, which is as long as it says so now and then. Whoever takes a lease over
raises its token, so that a daemon that wakes up again writes nothing with the old one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from windlass.priority import Priority
from windlass_schemas import Key

LEASE = timedelta(seconds=30)
"""How long a daemon counts as alive after its last word."""


_SOURCE = "source:"


def source_lease(source: str) -> str:
    """The lease of whoever follows a source."""
    return f"{_SOURCE}{source}"


def source_of(lease: str) -> str:
    """The source that a lease is for; empty when it is for something else."""
    return lease.removeprefix(_SOURCE) if lease.startswith(_SOURCE) else ""


@dataclass(frozen=True)
class Member:
    """What a daemon says of itself."""

    name: str
    """Unique among the daemons of a store, and the same after a restart."""
    home: str
    """Where it keeps its state: one process at a time has it."""
    host: str
    pid: int
    version: str
    workers: int
    lease: timedelta = LEASE


@dataclass(frozen=True)
class Colleague:
    """A daemon, as all see it."""

    name: str
    host: str
    pid: int
    version: str
    workers: int
    started_at: datetime
    until: datetime
    """When it stops counting as alive, or stopped."""
    alive: bool
    held: int
    """Objects that it works on."""
    leases: tuple[str, ...]
    """What it alone does: ``source:...``, ``outbox``."""
    targets: tuple[str, ...]
    """Targets whose resources live on its host."""


@dataclass(frozen=True)
class Due:
    """An object that this daemon has taken."""

    key: Key
    lane: str
    """``namespace/target``."""
    priority: Priority
    former: str
    """The daemon that held it and is gone; empty when nobody did."""


@dataclass(frozen=True)
class Home:
    """The daemon on whose host a target lives."""

    daemon: str
    mine: bool
    alive: bool


class Roster(Protocol):
    """One daemon's place among those that share a store. Every method raises StoreError."""

    name: str
    """This daemon's."""
    lease: timedelta

    @abstractmethod
    async def beat(self) -> int:
        """Say that this daemon is alive; how many objects it holds.

        Raises LeaseLostError when another one has started under its name.
        """

    @abstractmethod
    async def take(self, room: int, full: Sequence[str]) -> Sequence[Due]:
        """Take up to ``room`` objects that are due, none on the lanes that are ``full``."""

    @abstractmethod
    async def next_due(self) -> float | None:
        """Seconds until something is due; None when nothing will be."""

    @abstractmethod
    async def look(self, keys: Sequence[Key], priority: Priority) -> None:
        """Make objects due now, for whichever daemon takes them."""

    @abstractmethod
    async def give_back(self, keys: Sequence[Key]) -> None:
        """Leave taken objects, on which nothing was done, to others."""

    @abstractmethod
    async def hold(self, lease: str) -> bool:
        """Get or keep what only one daemon does at a time; whether it is this one."""

    @abstractmethod
    async def bind(self, target: str, host: str) -> Home:
        """Whose host a target lives on: the one named, or whoever asks first."""

    @abstractmethod
    async def revisits(self, sources: Sequence[str]) -> Mapping[str, int]:
        """How often each source was asked to declare its set again."""

    @abstractmethod
    async def colleagues(self) -> Sequence[Colleague]:
        """All daemons that have ever shared the store, in the order of their names."""

    @abstractmethod
    def hints(self) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """What others say has happened: ``due``, ``events``. May lose any; look by yourself too."""

    @abstractmethod
    async def leave(self) -> None:
        """Hand everything over: others may have it now."""
