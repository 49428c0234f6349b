"""Two owners: a daemon that stalled in the middle of a pass, and the one that took over.

The new one has opened the same database, so the former one's writes must be refused; but the former
one may still have a call to the backend on its way. Every turn in which they can take their steps
is tried, up to a number of switches between them. A step is one word to the store or the backend.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from windlass.store.base import Document, StoreError
from windlass_adapters.testing.oracles import (
    check_events,
    check_quiet,
    check_single,
    check_truthful,
    counts,
)
from windlass_adapters.testing.schedules import CALM_PASSES, TALLY, Theatre
from windlass_adapters.testing.stepping import Gate
from windlass_adapters.testing.world import World
from windlass_schemas import key_of

TAKEOVER_SECONDS = 1.0
"""How long the new owner works, in its own time, while the former one may still wake up."""


@dataclass(frozen=True)
class Turns:
    """The former owner stops after ``stall`` steps; then the two go on in turns."""

    stall: int
    switches: tuple[int, ...]
    """Steps of the new owner, of the former one, of the new one, and so on; then each one ends."""


class Owners:
    """One race: the same document, reconciled by both."""

    def __init__(self, theatre: Theatre, document: Document, quiet: int = 3) -> None:
        self._theatre = theatre
        self._document = document
        self._quiet = quiet

    async def race_all(self, switches: int, every: int = 1) -> int:
        """Run races with up to so many switches after the stall, each or every so manieth.

        Returns how many.
        """
        ran = 0
        former, new = await self._race(Turns(10**6, ()))
        for stall in range(0, former + 1, every):
            for turns in islice(_turns(stall, former - stall, new, switches), 0, None, every):
                try:
                    await self._race(turns)
                except AssertionError as error:
                    raise AssertionError(f"{self._theatre.name}, {turns}: {error}") from error
                ran += 1
        TALLY.interleavings += ran
        return ran

    async def _race(self, turns: Turns) -> tuple[int, int]:
        """One race, and the oracles. Returns how many steps each owner took."""
        async with self._theatre.stage() as world:
            await world.declare(self._document)
            key = key_of(self._document.resource)
            former = Racer(world, Gate(world.reconciler.reconcile(key)))
            await former.steps(turns.stall)
            heir = await type(world).make(world.folder, world.backend, world.adapter, inline=True)
            heir.checks.append(check_truthful)
            new = Racer(heir, Gate(heir.after(seconds=TAKEOVER_SECONDS)))
            written = world.writes()
            for number, count in enumerate(turns.switches):
                await (former if number % 2 else new).steps(count)
                check_single(heir)
            await (former if len(turns.switches) % 2 else new).finish()
            await (new if len(turns.switches) % 2 else former).finish()
            assert world.writes() == written, "a write with an old token was accepted"
            refused = former.gate.error
            assert refused is None or isinstance(refused, StoreError), f"not refused: {refused!r}"
            assert new.gate.error is None, f"the new owner failed: {new.gate.error!r}"
            await self._check(heir)
            await heir.close()
            return former.taken, new.taken

    async def _check(self, heir: World) -> None:
        for _ in range(CALM_PASSES):
            await heir.next_pass()
        made = counts(heir.backend)
        assert list(made.values()) == [1], f"(b) not one create and nothing else: {made}"
        check_single(heir)
        await check_quiet(heir, self._quiet)
        await check_events(heir)


class Racer:
    """One owner, one word to the store or the backend at a time."""

    def __init__(self, world: World, gate: Gate) -> None:
        self._world = world
        self.gate = gate
        self.taken = 0

    async def steps(self, count: int) -> None:
        """Take so many steps, or all that are left."""
        for _ in range(count):
            before = self._world.touches()
            while not self.gate.finished and self._world.touches() == before:
                await self.gate.step()
            if self.gate.finished:
                return
            self.taken += 1

    async def finish(self) -> None:
        """Go on to the end."""
        await self.steps(10**6)


def _turns(stall: int, former: int, new: int, switches: int) -> Iterator[Turns]:
    """All turns with at most so many switches; the last ones run to their end."""

    def further(left: int, mine: int, other: int) -> Iterator[tuple[int, ...]]:
        yield ()
        if left:
            for count in range(1, mine):
                for rest in further(left - 1, other, mine - count):
                    yield (count, *rest)

    for found in further(switches, new, former):
        yield Turns(stall, found)
