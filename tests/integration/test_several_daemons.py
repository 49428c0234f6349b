"""Daemons that share a store: each does a part, nothing is done twice, and a dead one is missed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.crew import Crew, crew
from rig.postgres import Postgres, member
from windlass.store.address import Address
from windlass.store.base import StoreError
from windlass.store.postgres import PostgresStore
from windlass_schemas import Reason

COUNT = 15

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def sharing(postgres: Postgres, tmp_path: Path) -> Iterator[Crew]:
    with crew(postgres, tmp_path) as made:
        yield made


def test_two_daemons_share_the_work_and_do_nothing_twice(sharing: Crew) -> None:
    """Both have made a part of it, and the books have no gap."""
    sharing.declare(COUNT)
    sharing.start("a")
    sharing.start("b")
    sharing.settled(2 * COUNT)
    done = sharing.shelf.by_daemon()
    assert done["a"] + done["b"] == 2 * COUNT
    assert min(done["a"], done["b"]) > 0
    assert sharing.faults() == []


def test_a_daemon_that_is_killed_leaves_nothing_undone_and_nothing_done_twice(
    sharing: Crew,
) -> None:
    sharing.declare(COUNT)
    doomed = sharing.start("a", latency=0.2)
    sharing.until(lambda: sharing.shelf.by_daemon()["a"] >= 3, "some is made")
    sharing.start("b", latency=0.05)
    doomed.kill()
    sharing.settled(2 * COUNT)
    assert sharing.faults() == []
    assert sharing.ask("SELECT name FROM lease WHERE who(owner) = 'a'") == []


def test_a_daemon_that_sleeps_longer_than_its_lease_writes_nothing_when_it_wakes(
    sharing: Crew,
) -> None:
    """It finds its objects with the other one, and goes on with others."""
    sharing.declare(COUNT)
    sleeper = sharing.start("a", latency=0.2)
    sharing.until(lambda: sharing.shelf.by_daemon()["a"] >= 3, "some is made")
    sleeper.freeze()
    sharing.start("b", latency=0.05)
    sharing.settled(2 * COUNT)
    sleeper.thaw()
    sharing.declare(COUNT + 10)
    sharing.settled(2 * COUNT + 20)
    sharing.until(
        lambda: sharing.ask("SELECT name FROM daemon WHERE until > now() ORDER BY 1") == ["a", "b"],
        "both are alive",
    )
    assert sharing.faults() == []


def test_a_daemon_that_is_told_to_stop_hands_everything_over(sharing: Crew) -> None:
    """When it has ended, nothing is held by it, although its lease would last for minutes."""
    sharing.declare(COUNT)
    going = sharing.start("a", latency=0.3, lease=600)
    sharing.until(lambda: sharing.shelf.by_daemon()["a"] >= 3, "some is made")
    assert going.stop() == 0
    assert sharing.ask("SELECT key FROM agenda WHERE who(owner) = 'a'") == []
    assert sharing.ask("SELECT name FROM lease WHERE who(owner) = 'a'") == []
    sharing.start("b")
    sharing.settled(2 * COUNT)
    assert sharing.faults() == []


def test_the_source_is_followed_by_one_and_by_another_when_that_one_dies(sharing: Crew) -> None:
    sharing.declare(2)
    first = sharing.start("a")
    sharing.settled(4)
    sharing.start("b")
    sharing.until(lambda: "b" in sharing.ask("SELECT name FROM daemon"), "b is there")
    assert sharing.ask("SELECT who(owner) FROM lease WHERE name LIKE 'source:%'") == ["a"]
    first.kill()
    sharing.declare(5)
    sharing.settled(10)
    assert sharing.ask("SELECT who(owner) FROM lease WHERE name LIKE 'source:%'") == ["b"]
    assert sharing.faults() == []


def test_what_lives_on_one_host_waits_for_its_daemon_and_says_so(sharing: Crew) -> None:
    """Nobody else touches it or takes it for lost; when the daemon is back, all goes on."""
    sharing.declare(3)
    first = sharing.start("a", bound=True)
    sharing.settled(6)
    sharing.start("b", bound=True)
    first.kill()
    reasons = "SELECT DISTINCT reason FROM overview"
    sharing.until(lambda: sharing.ask(reasons) == [Reason.HOST_AWAY], "all say HostAway")
    sharing.declare(4)
    sharing.until(lambda: sharing.ask("SELECT count(*) FROM desired") == ["8"], "b follows")
    sharing.start("a", bound=True)
    sharing.settled(8)
    assert set(sharing.shelf.by_daemon()) == {"a"}
    assert sharing.faults() == []


def test_two_daemons_at_work_do_not_have_one_name(sharing: Crew) -> None:
    """The second one is told what to do, and the first one goes on."""
    sharing.declare(1)
    sharing.start("a")
    sharing.settled(2)
    address = Address.parse(sharing.url)

    async def second() -> None:
        with pytest.raises(StoreError, match=r"a daemon named 'a' is at work .*: WINDLASS_NAME"):
            await PostgresStore.open(address, member("a", home="elsewhere"))

    asyncio.run(second())
    sharing.declare(2)
    sharing.settled(4)
