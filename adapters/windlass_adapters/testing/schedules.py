"""Tell a story and cut it at every await, and again at every await of the recovery.

After each schedule all five oracles are asked, against the same story told without a fault.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from windlass.store.base import StoreError
from windlass.store.sqlite import DATABASE, SqliteStore
from windlass_adapters.testing.cast import IN_MEMORY, Cast
from windlass_adapters.testing.clocks import telling_the_time
from windlass_adapters.testing.life import StageLoop
from windlass_adapters.testing.oracles import (
    QUIET_PASSES,
    EndState,
    books,
    check_end,
    check_events,
    check_quiet,
    check_truthful,
    end_state,
)
from windlass_adapters.testing.port import KitBackend
from windlass_adapters.testing.stepping import Cut, Killed
from windlass_adapters.testing.stories import Story, declare, stories_for, until_ready
from windlass_adapters.testing.world import World

FAULTS: dict[str, Callable[[], BaseException]] = {
    "killed": Killed,
    "cancelled": asyncio.CancelledError,
    "timeout": TimeoutError,
    "store error": lambda: StoreError("the database did not take the write (by the test)"),
}
CALM_PASSES = 5
"""Passes after a story before it is called settled."""
QUIET_AGAIN = 3
"""Quiet passes from a state that has been seen to stay quiet already: a pass is decided by it."""


@dataclass(frozen=True)
class Depth:
    """How many of the cuts are tried. All single ones, if nothing else is said."""

    reach: int = 48
    """How many awaits after the first cut the second may come: some three passes."""
    stride: int = 1
    """Every how manieth of them; the first cut shifts which."""
    every: int = 1
    """Every how manieth first cut; theatre, story and fault shift which."""
    errors: int = 1
    """Of what is no kill, every how manieth of those."""

    def for_fault(self, fault: str) -> Depth:
        """Only kills are tried in pairs, unless all is wanted: an error leaves a daemon alive."""
        if fault == "killed" or self.stride == 1:
            return self
        return Depth(reach=0, every=self.every * self.errors)

    def firsts(self, steps: int, shift: int) -> range:
        """The first cuts of a story of so many steps."""
        return range(shift % min(self.every, max(steps, 1)), steps, self.every)

    def cuts(self, first: int) -> Iterator[tuple[int, ...]]:
        """All ways to go on after a first cut."""
        yield (first,)
        for second in range(first % self.stride, self.reach, self.stride):
            yield (first, second)


@dataclass
class Tally:
    """How much was run, for the last line of the test run."""

    schedules: int = 0
    interleavings: int = 0
    orders: int = 0
    """What the interleavings stand for at least, those included that make no difference."""
    played: dict[str, int] = field(default_factory=dict)
    """Schedules by the theatre, and how many of the stories its cast can play."""

    def add(self, told: Mapping[str, object]) -> None:
        """Add what another process has run."""
        for name, count in told.items():
            if isinstance(count, dict):
                for theatre, played in count.items():
                    self.played[theatre] = self.played.get(theatre, 0) + played
            else:
                setattr(self, name, getattr(self, name) + count)


TALLY = Tally()


@dataclass
class Theatre:
    """Where stories are told: each time on a new state and a new backend."""

    name: str
    backend: Callable[[], KitBackend]
    """A fresh one."""
    cast: Cast = IN_MEMORY
    """The documents that the stories are told with."""
    world: type[World] = World
    """With another store, another world."""
    _empty: bytes = field(default=b"", init=False)
    """A database with its schema and nothing in it."""
    _proven: set[object] = field(default_factory=set, init=False)
    """States, without what differs from run to run, that have been seen to stay quiet."""

    @asynccontextmanager
    async def stage(self) -> AsyncIterator[World]:
        """A new world, gone afterwards."""
        with tempfile.TemporaryDirectory(dir=_in_memory()) as name:
            folder = Path(name)
            if not self._empty:
                await (await SqliteStore.open(folder / "empty.db")).close()
                self._empty = (folder / "empty.db").read_bytes()
            (folder / DATABASE).write_bytes(self._empty)
            backend = self.backend()
            time = telling_the_time(backend.timed, lambda: backend.clock())
            with silence(), time, backend.staged():
                world = await self.world.make(folder, backend, inline=True, cast=self.cast)
                try:
                    if self.cast.beside:
                        await declare(world)
                        await until_ready(world, *self.cast.beside)
                    world.checks.append(check_truthful)
                    yield world
                finally:
                    await world.close()

    def stories(self) -> Sequence[Story]:
        """Those that can be told with this cast."""
        return stories_for(self.cast)

    def play(self, depth: Depth, fault: str = "killed") -> int:
        """Cut each story at each await, on a stage of its own; return how many ways.

        To be called where no event loop runs: a real adapter needs one with a time of its own.
        """

        async def everything() -> int:
            return sum([await self.try_all(story, depth, fault) for story in self.stories()])

        with asyncio.Runner(loop_factory=StageLoop) as runner:
            return runner.run(everything())

    async def tell(self, story: Story, cut: Cut) -> EndState:
        """Tell a story under a cut; oracles (c), (d) and (e) are asked here."""
        async with self.stage() as world:
            await story.before(world)
            world.cut = cut
            await story.act(world)
            cut.at = cut.at[: cut.struck]  # what has not happened by now is another story
            for _ in range(CALM_PASSES):
                await world.next_pass()
            end = await end_state(world)
            known = (end, await books(world))
            await check_quiet(world, QUIET_AGAIN if known in self._proven else QUIET_PASSES)
            self._proven.add(known)
            await check_events(world)
            return end

    async def try_all(self, story: Story, depth: Depth, fault: str = "killed") -> int:
        """Cut a story at each of its awaits, and again in what follows; return how many ways."""
        whole = Cut()
        async with self.stage() as world:  # only the story's own awaits are counted
            await story.before(world)
            world.cut = whole
            await story.act(world)
        reference = await self.tell(story, Cut())
        ran = 0
        shift = len(self.name) + len(story.name) + len(fault)
        for first in depth.firsts(whole.steps, shift):
            for at in depth.cuts(first):
                cut = Cut(at, FAULTS[fault]())
                try:
                    check_end(await self.tell(story, cut), reference)
                except AssertionError as error:
                    told = f"{self.name}, {story.name}, {fault} at {list(at)}"
                    raise AssertionError(f"{told}: {error}") from error
                ran += 1
        TALLY.schedules += ran
        told = f"{self.name} ({len(self.stories())} stories)"
        TALLY.played[told] = TALLY.played.get(told, 0) + ran
        return ran


@contextmanager
def silence() -> Iterator[None]:
    """Thousands of failures on purpose are no news."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


def _in_memory() -> str | None:
    """A folder that costs no disk, where there is one: a killed program loses no memory."""
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() else None
