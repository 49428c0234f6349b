"""A daemon that stalled, and the one that took over: the backend holds one, the store obeys one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

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
from windlass_adapters.testing.owners import Owners
from windlass_adapters.testing.schedules import Theatre

CLAIMING = (DETERMINISTIC, replace(SERVER_CHOSEN, claims=True), SLURM_LIKE)


@pytest.mark.parametrize("personality", CLAIMING, ids=lambda p: p.name)
@pytest.mark.parametrize("document", [kept_file(), job()], ids=["lasting", "run"])
async def test_two_owners_make_one_and_no_old_write_is_taken(
    personality: Personality, document: Document
) -> None:
    theatre = Theatre(personality.name, lambda: MemoryBackend(personality))
    assert await Owners(theatre, document).race_all(DEPTH.switches) > 30


async def test_a_backend_that_claims_nothing_and_lags_is_where_the_promise_ends() -> None:
    """Neither a lease nor a lookup can fence a request that is on its way: hence the claim."""
    theatre = Theatre("no claim", lambda: MemoryBackend(SERVER_CHOSEN, lag=timedelta(seconds=3)))
    with pytest.raises(AssertionError, match=r"held more than once|not one create"):
        await Owners(theatre, kept_file()).race_all(1)
