"""A daemon that stalled, and the one that took over: the backend holds one, the store obeys one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from math import comb

import pytest

from rig.depth import DEPTH
from windlass.store.base import Document
from windlass_adapters.testing import (
    DETERMINISTIC,
    SERVER_CHOSEN,
    SLURM_LIKE,
    MemoryBackend,
    Personality,
)
from windlass_adapters.testing.documents import job, kept_file
from windlass_adapters.testing.owners import Owners, Race
from windlass_adapters.testing.schedules import Theatre

pytestmark = pytest.mark.kit
CLAIMING = (DETERMINISTIC, replace(SERVER_CHOSEN, claims=True), SLURM_LIKE)
FEW = 10_000 if DEPTH.all_orders else 70
"""Orders after one stall that are all tried, to see that leaving some out loses nothing."""


def unclaimed() -> Theatre:
    """A backend on which two owners can do harm: no claim, and it shows old states."""
    return Theatre("no claim", lambda: MemoryBackend(SERVER_CHOSEN, lag=timedelta(seconds=3)))


@pytest.mark.parametrize("personality", CLAIMING, ids=lambda p: p.name)
@pytest.mark.parametrize("document", [kept_file(), job()], ids=["lasting", "run"])
async def test_two_owners_make_one_and_no_old_write_is_taken(
    personality: Personality, document: Document
) -> None:
    """Every order of their steps. ``make test-long`` runs those too that make no difference."""
    theatre = Theatre(personality.name, lambda: MemoryBackend(personality))
    owners = Owners(theatre, document)
    assert await owners.race_all(all_orders=DEPTH.all_orders) > 30


async def test_orders_that_are_left_out_would_have_shown_nothing_else() -> None:
    """Where harm can be done, the races that are run find every sort of it."""
    owners, compared = Owners(unclaimed(), kept_file()), 0
    for stall in range(await owners.steps() + 1):
        races = [race async for race in owners.races(stall)]
        former, new = races[0].order.count("f"), races[0].order.count("n")
        if comb(former + new, new) > FEW:
            continue
        everything = [race async for race in owners.races(stall, all_orders=True)]
        assert len({race.order for race in everything}) == len(everything) >= len(races)
        assert sorts(everything) == sorts(races)
        compared += len(everything)
    assert compared > 50


def sorts(races: list[Race]) -> set[str]:
    """What the oracles said, without names and numbers."""
    return {race.complaint.partition(":")[0] for race in races}


async def test_a_backend_that_claims_nothing_and_lags_is_where_the_promise_ends() -> None:
    """Neither a lease nor a lookup can fence a request that is on its way: hence the claim."""
    with pytest.raises(AssertionError, match=r"held more than once|not one create"):
        await Owners(unclaimed(), kept_file()).race_all()
