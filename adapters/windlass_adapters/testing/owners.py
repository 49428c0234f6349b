"""Two owners: a daemon that stalled in the middle of a pass, and the one that took over.

The new one has opened the same database, so the former one's writes must be refused; but the former
one may still have a call to the backend on its way. A step is one word to the store or the backend.

Every stall is tried, and after it every order of the steps of both that can make a difference. Two
orders make none when one comes from the other by exchanging neighbours, a step of the new owner and
one of the former one, that have nothing to do with each other: neither reads what the other writes.
Which do (``_independent``):

- Whoever changes the backend has to do with every step of the other: the oracles look at the
  backend whenever the new owner has gone a step.
- A look of the former one at the backend has to do with what changes the backend, or the time.
- Its reading of an object in the store has to do with what writes that very object.
- Its writes to the store are refused by the token, which nobody changes any more: they have to do
  with nothing. That they are refused is one of the oracles.

What an owner does next depends only on the answers that it got, so the former one's next word is
known from the run in which it was said earlier. Of all orders that are equal in this sense, the one
is kept in which the former owner goes as early as it can: it never goes right after a step of the
new owner that has nothing to do with its own (exchanging the two gives an equal order that comes
before). So nothing is lost; a test compares with every order there is, where they are few.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from math import comb

from windlass.store.base import Document, StoreError
from windlass_adapters.testing.oracles import (
    check_events,
    check_quiet,
    check_single,
    check_truthful,
    counts,
)
from windlass_adapters.testing.schedules import CALM_PASSES, TALLY, Theatre
from windlass_adapters.testing.steppedstore import Said, SteppedStore
from windlass_adapters.testing.stepping import Gate
from windlass_adapters.testing.world import World
from windlass_schemas import key_of

TAKEOVER_SECONDS = 1.0
"""How long the new owner works, in its own time, while the former one may still wake up."""
NOTHING = Said()


@dataclass(frozen=True)
class Word:
    """What one step has said."""

    store: Said
    looks: bool = False
    """Whether it asked the backend."""
    changes: bool = False
    """Whether it changed the backend, or the time by which the backend goes."""


@dataclass(frozen=True)
class Race:
    """One order of the steps after a stall, and what came of it."""

    order: str
    """``f`` for a step of the former owner, ``n`` for one of the new one."""
    words: tuple[Word | None, ...]
    """What each step said; None for a last one that only thinks."""
    complaint: str = ""
    """Of the oracles; empty when they have none."""

    def others(self, begun: int) -> list[tuple[str, Word]]:
        """How to go another way: the new owner goes where the former one went, and its word."""
        found = []
        for i in range(begun, len(self.order)):
            word = self.words[i]
            if self.order[i] == "f" and word is not None and "n" in self.order[i:]:
                found.append((self.order[:i] + "n", word))
        return found


class Owners:
    """The same document, reconciled by both."""

    def __init__(self, theatre: Theatre, document: Document, quiet: int = 3) -> None:
        self._theatre = theatre
        self._document = document
        self._quiet = quiet
        self.merged = 0
        """Orders that turned out to be equal to another one on their way."""
        self.orders = 0
        """How many orders there are at least, those that make no difference included."""

    async def race_all(self, *, all_orders: bool = False) -> int:
        """Run every race that can make a difference; return how many. Raises AssertionError."""
        ran = 0
        for stall in range(await self.steps() + 1):
            async for race in self.races(stall, all_orders=all_orders):
                told = f"{self._theatre.name}, stalled after {stall}, {race.order}"
                assert not race.complaint, f"{told}: {race.complaint}"
                ran += 1
        TALLY.interleavings += ran
        TALLY.orders += self.orders
        return ran

    async def race_some(self, every: int = 1) -> int:
        """For a store that does not tell its words: the new owner goes first, and stops once.

        Tries each, or every so manieth, stall and stop. Returns how many. Raises AssertionError.
        """
        ran = 0
        for stall in range(0, await self.steps() + 1, every):
            stops, stop = 1, 0
            while stop < stops:
                race = await self._race(stall, "n" * stop, None, all_orders=True)
                assert race is not None
                told = f"{self._theatre.name}, stalled after {stall}, {race.order}"
                assert not race.complaint, f"{told}: {race.complaint}"
                stops, stop, ran = race.order.count("n"), stop + every, ran + 1
        TALLY.interleavings += ran
        return ran

    async def steps(self) -> int:
        """How many steps the former owner takes when nobody takes over."""
        async with self._theatre.stage() as world:
            await world.declare(self._document)
            former = Racer(world, Gate(world.reconciler.reconcile(key_of(self._document.resource))))
            taken = 0
            while await former.step() is not None:
                taken += 1
            await former.gate.finish()
            return taken

    async def races(self, stall: int, *, all_orders: bool = False) -> AsyncIterator[Race]:
        """The races after one stall; with ``all_orders`` also those that make no difference."""
        waiting: list[tuple[str, Word | None]] = [("", None)]
        first = True
        while waiting:
            begin, pending = waiting.pop()
            race = await self._race(stall, begin, pending, all_orders=all_orders)
            if race is None:
                self.merged += 1
                continue
            if first:
                former, new = race.order.count("f"), race.order.count("n")
                self.orders += comb(former + new, new)
                first = False
            waiting += race.others(len(begin))
            yield race

    async def _race(
        self, stall: int, begin: str, pending: Word | None, *, all_orders: bool
    ) -> Race | None:
        """One race and the oracles; None when it comes to an order that is known already.

        It goes as ``begin`` says, then the former owner first. ``pending`` is the former owner's
        next word after that.
        """
        async with self._theatre.stage() as world:
            await world.declare(self._document)
            former = Racer(world, Gate(world.reconciler.reconcile(key_of(self._document.resource))))
            for _ in range(stall):
                await former.step()
            heir = await type(world).make(
                world.folder, world.behind, world.adapter, inline=True, cast=world.cast
            )
            heir.checks.append(check_truthful)
            new = Racer(heir, Gate(heir.after(seconds=TAKEOVER_SECONDS)))
            written, complaint, ran = world.writes(), "", Ran()
            try:
                await ran.go(former, new, begin, None if all_orders else pending)
                await former.gate.finish()
                assert world.writes() == written, "a write with an old token was accepted"
                refused = former.gate.error
                assert refused is None or isinstance(refused, StoreError), f"wrote: {refused!r}"
                assert new.gate.error is None, f"the new owner failed: {new.gate.error!r}"
                if not ran.known:
                    await self._check(heir)
            except AssertionError as error:
                complaint = str(error)
            await former.gate.finish()
            await new.gate.finish()
            await heir.close()
        if ran.known and not complaint:
            return None
        return Race("".join(ran.order), tuple(ran.words), complaint)

    async def _check(self, heir: World) -> None:
        for _ in range(CALM_PASSES):
            await heir.next_pass()
        made = counts(heir.behind)
        assert list(made.values()) == [1], f"(b) not one create and nothing else: {made}"
        check_single(heir)
        await check_quiet(heir, self._quiet)
        await check_events(heir)


def _is_blocked(last: Word | None, pending: Word | None) -> bool:
    """Whether the former owner's next word belongs before the new one's last step."""
    return pending is not None and (last is None or _independent(last, pending))


def _independent(new: Word, former: Word) -> bool:
    """Whether two neighbouring steps of the two owners may be exchanged without a difference."""
    if former.changes:
        return False
    if former.looks:
        return not new.changes
    return former.store.reads is None or former.store.reads != new.store.writes


@dataclass
class Ran:
    """The way that a race has gone so far."""

    order: list[str] = field(default_factory=list)
    words: list[Word | None] = field(default_factory=list)
    known: bool = False
    """Whether it has come to where another race has been."""

    async def go(self, former: Racer, new: Racer, begin: str, pending: Word | None) -> None:
        """To the end of both, or to where it is known."""
        while not (former.gate.finished and new.gate.finished):
            last = self.words[-1] if self.words else None
            if len(self.order) < len(begin):
                goes = begin[len(self.order)]
            elif not former.gate.finished and not _is_blocked(last, pending):
                goes, pending = "f", None
            elif not new.gate.finished:
                goes = "n"
            else:
                self.known = True
                return
            self.words.append(await (former if goes == "f" else new).step())
            self.order.append(goes)
            check_single(new.world)


class Racer:
    """One owner, one word to the store or the backend at a time."""

    def __init__(self, world: World, gate: Gate) -> None:
        self.world = world
        self.gate = gate

    async def step(self) -> Word | None:
        """Go on until the next word is said; None when it ends without another one."""
        world, calls = self.world, self.world.behind.calls.copy()
        touched, now = world.touches(), world.now
        while not self.gate.finished and world.touches() == touched:
            await self.gate.step()
        later = world.now != now
        if world.touches() == touched:
            return Word(NOTHING, changes=True) if later else None
        said, store = world.behind.calls - calls, world.store
        return Word(
            store=store.last if isinstance(store, SteppedStore) and not said else NOTHING,
            looks=bool(said),
            changes=later or any(operation in world.behind.changing for operation in said),
        )
