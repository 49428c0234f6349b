"""Who else works on the same store: nobody, or other daemons, each with a place in the roster."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Protocol

import structlog

from windlass.agenda import SharedAgenda
from windlass.metrics import SharingMetrics
from windlass.relay import Relay
from windlass.standing import while_held
from windlass.store.base import LeaseLostError, StoreError
from windlass.store.roster import Colleague, Roster, source_of
from windlass.troubles import Troubles
from windlass_schemas import Key

HAND_OVER = 1.5
"""Seconds that passes get at a stop when another daemon can go on with them."""
REVISIT_INTERVAL = 5.0
"""Seconds between two looks whether a source is to declare its set again."""

_log = structlog.get_logger("windlass.company")

Work = Callable[[], Awaitable[None]]
TakeAgain = Callable[[str], Awaitable[None]]


class Company(Protocol):
    """What is done by one daemon at a time, and what each says to the others."""

    @abstractmethod
    async def only_here(self, lease: str, work: Work, stand_by: Callable[[], None]) -> None:
        """Do it for ever, while nobody else does. ``stand_by`` is told when another one does."""

    @abstractmethod
    async def revisit(self, source: str, take_again: TakeAgain) -> None:
        """Declare a source's set again whenever others have let go what it declares too."""

    @abstractmethod
    async def followed(self) -> set[str]:
        """Sources that others follow."""

    @abstractmethod
    async def mine(self, found: Sequence[tuple[Key, str]]) -> Sequence[tuple[Key, str]]:
        """What this daemon looks at when it starts, of all keys with their lanes."""

    @abstractmethod
    def tasks(self) -> Sequence[Coroutine[None, None, None]]:
        """What goes on as long as the daemon lives."""

    @abstractmethod
    async def hand_over(self, grace: float) -> float:
        """The daemon stops: leave to others what is not begun; seconds that passes may take."""

    @abstractmethod
    async def leave(self) -> None:
        """The daemon has stopped."""


class Alone(Company):
    """The store is this daemon's."""

    async def only_here(self, lease: str, work: Work, stand_by: Callable[[], None]) -> None:
        await work()

    async def revisit(self, source: str, take_again: TakeAgain) -> None:
        """Who lets a key go here says so itself."""

    async def followed(self) -> set[str]:
        return set()

    async def mine(self, found: Sequence[tuple[Key, str]]) -> Sequence[tuple[Key, str]]:
        return found

    def tasks(self) -> Sequence[Coroutine[None, None, None]]:
        return ()

    async def hand_over(self, grace: float) -> float:
        return grace

    async def leave(self) -> None:
        """There is nobody to be told."""


class Colleagues(Company):
    """Other daemons share the store."""

    def __init__(
        self,
        roster: Roster,
        agenda: SharedAgenda,
        relay: Relay,
        metrics: SharingMetrics,
        troubles: Troubles,
    ) -> None:
        self._roster = roster
        self._agenda = agenda
        self._relay = relay
        self._metrics = metrics
        self._troubles = troubles
        self._vacancy = asyncio.Event()
        """Set when another daemon has left what only one does."""

    async def only_here(self, lease: str, work: Work, stand_by: Callable[[], None]) -> None:
        await while_held(self._roster, lease, work, stand_by, self._vacancy)

    async def revisit(self, source: str, take_again: TakeAgain) -> None:
        seen: int | None = None
        while True:
            with suppress(StoreError):
                found = (await self._roster.revisits([source])).get(source)
                if seen is not None and found != seen:
                    await take_again(source)
                seen = found
            await asyncio.sleep(REVISIT_INTERVAL)

    async def followed(self) -> set[str]:
        return {source_of(lease) for each in await self._alive() for lease in each.leases}

    async def mine(self, found: Sequence[tuple[Key, str]]) -> Sequence[tuple[Key, str]]:
        """With others at work, only what lives on this host."""
        alive = await self._alive()
        if len(alive) < 2:
            return found
        me = next(each for each in alive if each.name == self._roster.name)
        return [(key, lane) for key, lane in found if lane in me.targets]

    def tasks(self) -> Sequence[Coroutine[None, None, None]]:
        return (self._beat(), self._listen())

    async def hand_over(self, grace: float) -> float:
        with suppress(StoreError):  # it lapses by itself
            await self._agenda.hand_over()
        return min(grace, HAND_OVER)

    async def leave(self) -> None:
        with suppress(StoreError):
            await self._roster.leave()

    async def _alive(self) -> Sequence[Colleague]:
        return [each for each in await self._roster.colleagues() if each.alive]

    async def _beat(self) -> None:
        """Say that this daemon is alive, three times in the time after which it would not be."""
        while True:
            try:
                self._metrics.held.set(await self._roster.beat())
                await self._agenda.recollect()
                self._troubles.store = ""
            except LeaseLostError:
                raise
            except StoreError as error:
                self._troubles.store = str(error)
                _log.error("not known to be alive; trying again", error=str(error))
            await asyncio.sleep(self._roster.lease.total_seconds() / 3)

    async def _listen(self) -> None:
        """What others say has happened is looked up at once."""
        async with self._roster.hints() as hints:
            async for what in hints:
                if what == "events":
                    self._relay.tell_news()
                if what == "left":
                    self._vacancy.set()
                self._agenda.hint()
