"""The source port: hop 1. A source sees that something changed and reads its whole current set.

What wakes a source is a hint and may be lost; ``snapshots`` therefore also looks again by itself
now and then. It yields a snapshot when the set differs from the one before, and at the start.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Protocol

from windlass.store.base import Snapshot


class SourceUnavailableError(Exception):
    """The source cannot be read as a whole now; nothing is assumed to be gone. Says what to do."""


class Source(Protocol):
    """Somewhere that specs are declared."""

    id: str
    """Stable over restarts: the owner of the keys that it declares."""
    title: str
    """What it follows, for people: ``commits of /srv/specs``."""

    @abstractmethod
    async def read(self) -> Snapshot:
        """The whole current set. Raises SourceUnavailableError."""

    @abstractmethod
    def snapshots(self) -> AsyncIterator[Snapshot | SourceUnavailableError]:
        """The current set, then each changed one, for ever. A failure is yielded, not raised."""

    @abstractmethod
    def notes(self) -> tuple[str, ...]:
        """Things that a person should know, for the console: uncommitted changes, say."""
