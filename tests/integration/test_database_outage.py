"""A database that goes away in the middle of work: nothing is lost, nothing happens twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rig.crew import Crew, crew
from rig.fault_proxy import FaultProxy
from rig.postgres import Postgres, running_postgres

COUNT = 15

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def durable() -> Iterator[Postgres]:
    """A server that waits for its disk, as one does that may be killed."""
    with running_postgres(fast=False) as started:
        yield started


@pytest.fixture
def working(durable: Postgres, tmp_path: Path) -> Iterator[Crew]:
    with crew(durable, tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(Postgres.stop, id="stopped", marks=pytest.mark.long),
        pytest.param(Postgres.kill, id="killed"),
    ],
)
def test_daemons_outlive_their_database(
    durable: Postgres, working: Crew, end: Callable[[Postgres], None]
) -> None:
    """Both go on by themselves, twice in a row."""
    working.declare(COUNT)
    hands = [working.start(name, latency=0.1) for name in ("a", "b")]
    working.joined("a", "b")
    for least in (5, 15):
        working.until(lambda n=least: working.shelf.counts().total() >= n, "some is made")  # type: ignore[misc]  # bound at once
        end(durable)
        durable.start()
    working.settled(2 * COUNT)
    assert working.faults() == []
    assert [hand.process.poll() for hand in hands] == [None, None]


@pytest.mark.parametrize("cuts", [2, pytest.param(40, marks=pytest.mark.long)])
def test_connections_that_break_at_any_moment_lose_nothing_and_double_nothing(
    durable: Postgres, working: Crew, cuts: int
) -> None:
    """They are cut again and again, each time after another number of bytes."""
    working.declare(COUNT)
    with proxy(durable.port) as between:
        url = durable.url(working.database, port=between.port)
        working.start("a", url, latency=0.05)
        working.start("b", url, latency=0.05)
        working.joined("a", "b")
        for number in range(cuts):
            between.cut_after = 5000 + 3111 * (number % 9)
            working.until(
                lambda: between.cut_after is None or working.ready() == 2 * COUNT, "it is cut"
            )
        between.cut_after = None
        working.settled(2 * COUNT)
        assert working.faults() == []


@contextmanager
def proxy(port: int) -> Iterator[FaultProxy]:
    """A fault proxy with a thread of its own: the test itself waits without a loop."""
    made = FaultProxy(port)
    up, down = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def run() -> None:
        async with made:
            up.set()
            await down.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    try:
        assert up.wait(30)
        yield made
    finally:
        loop.call_soon_threadsafe(down.set)
        thread.join(30)
        loop.close()
