"""Follow the sources: hop 1. What wakes them is their own affair; each says its whole set."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence

import structlog

from windlass.company import Company
from windlass.declarations import Declarations
from windlass.sources.base import Source, SourceUnavailableError
from windlass.store.roster import source_lease

NOTES_INTERVAL = 2.0
"""Seconds between two looks at what sources have to tell people."""

_log = structlog.get_logger("windlass.following")


class Following:
    """Takes over whatever the sources say. A source that breaks ends the daemon."""

    def __init__(
        self, sources: Sequence[Source], declarations: Declarations, company: Company
    ) -> None:
        self._sources = sources
        self._declarations = declarations
        self._company = company
        self._heard: set[str] = set()
        self.all_heard = asyncio.Event()
        """Set when every source has had its first word, or another daemon follows one."""
        if not sources:
            self.all_heard.set()
        self.now: set[str] = set()
        """Sources that this daemon follows now; the others, another one does."""

    def tasks(self) -> Sequence[Coroutine[None, None, None]]:
        """One for each source, and one for what they have to tell people."""
        return [*(self._follow(source) for source in self._sources), self._tell_notes()]

    async def ids(self) -> set[str]:
        """Every source that somebody follows."""
        return {source.id for source in self._sources} | await self._company.followed()

    async def _follow(self, source: Source) -> None:
        async def work() -> None:
            self.now.add(source.id)
            try:
                async with asyncio.TaskGroup() as group:
                    take_again = self._declarations.take_again
                    group.create_task(self._company.revisit(source.id, take_again))
                    await self._follow_alone(source)
            finally:
                self.now.discard(source.id)
                self._declarations.forget(source.id)

        await self._company.only_here(source_lease(source.id), work, self.all_heard.set)

    async def _follow_alone(self, source: Source) -> None:
        async for item in source.snapshots():
            if isinstance(item, SourceUnavailableError):
                await self._declarations.lose(source.id, str(item))
            else:
                await self._declarations.take(item)
            self._heard.add(source.id)
            if len(self._heard) == len(self._sources):
                self.all_heard.set()

    async def _tell_notes(self) -> None:
        told: tuple[str, ...] = ()
        while True:
            notes = tuple(note for source in self._sources for note in source.notes())
            for note in notes:
                if note not in told:
                    _log.warning(note)
            told = notes
            await asyncio.sleep(NOTES_INTERVAL)
