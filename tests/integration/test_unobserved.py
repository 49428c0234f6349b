"""What nobody told us: hints that get lost, edits that come and go, names that come back."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from itertools import combinations

import pytest

from rig.depth import DEPTH
from windlass_adapters.testing import PERSONALITIES, MemoryBackend, Personality
from windlass_adapters.testing.documents import job, kept_file
from windlass_adapters.testing.oracles import check_events, check_quiet, check_single
from windlass_adapters.testing.schedules import TALLY, Theatre
from windlass_adapters.testing.world import World

pytestmark = pytest.mark.kit
LAG = timedelta(seconds=3)


def lagging(personality: Personality) -> Theatre:
    return Theatre(personality.name, lambda: MemoryBackend(personality, lag=LAG))


def subsets(count: int) -> Iterable[frozenset[int]]:
    numbers = range(count)
    for size in range(count + 1):
        yield from map(frozenset, combinations(numbers, size))


async def settled(world: World) -> None:
    """All five oracles at the end; the truth of each status is asked after every pass."""
    await world.after(minutes=3)
    check_single(world)
    await check_quiet(world, 10)
    await check_events(world)


@pytest.mark.parametrize("personality", PERSONALITIES, ids=lambda p: p.name)
async def test_whichever_hints_are_lost_the_end_is_the_same(personality: Personality) -> None:
    for lost in subsets(DEPTH.hints):
        async with lagging(personality).stage() as world:
            await world.declare(kept_file("a"), kept_file("b"))
            await world.until_ready("Model/a", "Model/b")
            world.deaf = frozenset(world.hints + number for number in lost)
            for version in (2, 3, 2):
                await world.declare(kept_file("a", version), kept_file("b", version))
                await world.settle()
            await settled(world)
            digests = {o.externals[0].wanted.digest for o in await world.store.list()}
            assert {h.digest for h in world.backend.held.values()} == digests
            assert all(o.status.is_true("Ready", o.generation) for o in await world.store.list())
            TALLY.schedules += 1


@pytest.mark.parametrize("personality", PERSONALITIES, ids=lambda p: p.name)
@pytest.mark.parametrize("restart", [False, True], ids=["alive", "restarted"])
async def test_a_name_that_is_removed_and_declared_again_is_held_once(
    personality: Personality, restart: bool
) -> None:
    for passes in DEPTH.passes(12, len(personality.name) + restart):
        async with lagging(personality).stage() as world:
            await world.declare(kept_file("keep"), kept_file(), job())
            await world.until_running()
            await world.declare(kept_file("keep"))
            for _ in range(passes):
                await world.next_pass()
            if restart:
                await world.kill()
            await world.declare(kept_file("keep"), kept_file(), job())
            await world.until_ready("Model/wine")
            await world.until_running()
            await settled(world)
            uids = {o.uid for o in await world.store.list()}
            assert {h.owner_uid for h in world.backend.held.values()} == uids
            assert len(world.backend.held) == 3
            TALLY.schedules += 1


@pytest.mark.parametrize("personality", PERSONALITIES, ids=lambda p: p.name)
async def test_an_edit_taken_back_at_any_moment_is_never_called_ready_too_early(
    personality: Personality,
) -> None:
    for passes in DEPTH.passes(12, len(personality.name)):
        async with lagging(personality).stage() as world:
            await world.declare(kept_file(version=1))
            await world.until_ready("Model/wine")
            before = world.backend.named("artifact").digest
            await world.declare(kept_file(version=2))
            for _ in range(passes):
                await world.next_pass()
            await world.declare(kept_file(version=1))
            await world.until_ready("Model/wine")
            assert world.backend.named("artifact").digest == before
            await settled(world)
            TALLY.schedules += 1
