"""The kit of the embedded store on PostgreSQL: cuts at awaits, two owners, random stories.

A commit runs a selection, ``long`` runs all of it: each statement is an await here, and takes its
time.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from property.test_convergence import PROFILE, Convergence
from rig.postgres import Postgres, member
from rig.sharedworld import SharedChaosWorld, SharedWorld, shared_worlds
from windlass.store.address import Address
from windlass.store.base import Document
from windlass.store.postgres import PostgresStore
from windlass_adapters.testing import DETERMINISTIC, SERVER_CHOSEN, MemoryBackend
from windlass_adapters.testing.cast import IN_MEMORY
from windlass_adapters.testing.documents import job, kept_file
from windlass_adapters.testing.owners import Owners
from windlass_adapters.testing.schedules import FAULTS, Depth, Theatre
from windlass_adapters.testing.stories import Story, stories_for

STORIES = stories_for(IN_MEMORY)
pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("quiet", "worlds"),
    # A daemon that is killed here leaves its connections as they are, as the system would.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def worlds(postgres: Postgres) -> Iterator[None]:
    """An empty database to copy, and worlds that take their copies."""
    url = postgres.database(name="kit")

    async def prepare() -> None:
        await (await PostgresStore.open(Address.parse(url), member())).close()

    asyncio.run(prepare())
    with shared_worlds(postgres):
        yield
    gc.collect()


def theatre(name: str) -> Theatre:
    return Theatre(name, lambda: MemoryBackend(DETERMINISTIC), world=SharedWorld)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_a_daemon_killed_at_some_awaits_leaves_no_duplicate(story: Story) -> None:
    assert await theatre("sample").try_all(story, Depth(reach=0, every=60)) > 0


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_a_daemon_disturbed_at_every_await_ends_as_declared(story: Story, fault: str) -> None:
    assert await theatre("all").try_all(story, Depth(reach=0, every=3), fault) > 0


@pytest.mark.parametrize("every", [8, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("document", [kept_file(), job()], ids=["lasting", "run"])
@pytest.mark.timeout(3600)
async def test_two_owners_make_one_and_no_old_write_is_taken(
    document: Document, every: int
) -> None:
    """A backend whose ids are its own, and which knows a repeated request."""
    claiming = replace(SERVER_CHOSEN, claims=True)
    stage = Theatre("claims", lambda: MemoryBackend(claiming), world=SharedWorld)
    assert await Owners(stage, document).race_some(every) > 0


class SharedConvergence(Convergence):
    """The same perturbations."""

    kind = SharedChaosWorld


@pytest.mark.parametrize("examples", [1, pytest.param(60, marks=pytest.mark.long)])
@pytest.mark.timeout(0)
def test_it_comes_to_what_is_declared_whatever_is_done_to_it(examples: int) -> None:
    chosen = settings(PROFILE, max_examples=examples, stateful_step_count=15)
    run_state_machine_as_test(SharedConvergence, settings=chosen)
