"""Leases of two daemons on one PostgreSQL store: what each may take and write, and when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from rig.events import condition_event
from rig.postgres import Postgres, member
from rig.world import deployment, job, model
from windlass.agenda import SharedAgenda
from windlass.metrics import Metrics
from windlass.priority import Priority
from windlass.store.address import Address
from windlass.store.base import (
    Claim,
    Document,
    LeaseLostError,
    Next,
    Outcome,
    Snapshot,
    StoreError,
    SyncObject,
)
from windlass.store.postgres import PostgresStore
from windlass.store.roster import Roster
from windlass.workqueue import WorkQueue
from windlass_adapters.testing.documents import kept_file
from windlass_schemas import (
    Key,
    Status,
)

TRAIN = Key.parse("Job/train")


@dataclass
class Two:
    """Two daemons with one clock, which the test owns."""

    address: Address
    now: datetime = datetime(2030, 1, 1, tzinfo=UTC)
    opened: list[PostgresStore] = field(default_factory=list)

    async def daemon(self, name: str, home: str = "") -> PostgresStore:
        store = await PostgresStore.open(self.address, member(name, home), lambda: self.now)
        self.opened.append(store)
        return store

    def after(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    async def declare(self, store: PostgresStore, *documents: Document) -> None:
        await store.apply(Snapshot("folder:/s", "r1", "ann", documents), self.now)


@pytest.fixture
async def two(postgres: Postgres) -> AsyncIterator[Two]:
    made = Two(Address.parse(postgres.database()))
    yield made
    for store in made.opened:
        store.terminate()


def roster(store: PostgresStore) -> Roster:
    assert store.roster is not None
    return store.roster


async def taken(store: PostgresStore, room: int = 10) -> list[Key]:
    return [due.key for due in await roster(store).take(room, [])]


async def claimed(store: PostgresStore, key: Key = TRAIN) -> Claim:
    claim = await store.claim(key)
    assert claim is not None
    return claim


def passed(claim: Claim, after: float = 300.0, **more: object) -> Outcome:
    """A pass that has seen nothing new."""
    then = Next(after=after, **more)  # type: ignore[arg-type]  # its fields
    return Outcome(claim.object.status, hold=claim.object.hold, next=then)


async def test_each_object_is_taken_by_one(two: Two) -> None:
    a, b = await two.daemon("a"), await two.daemon("b")
    await two.declare(a, *(job(f"j{i}") for i in range(20)))
    found = await asyncio.gather(*(taken(store, 6) for store in (a, b, a, b)))
    keys = [key for each in found for key in each]
    assert len(keys) == len(set(keys)) == 20
    assert await b.claim(found[0][0]) is None


async def test_a_silent_daemon_s_objects_are_taken_over_and_its_writes_refused(two: Two) -> None:
    a, b = await two.daemon("a"), await two.daemon("b")
    await two.declare(a, job())
    assert await taken(a) == [TRAIN]
    claim = await claimed(a)
    two.after(20)
    await roster(b).beat()
    assert await taken(b) == [], "it has said a word 20 seconds ago"
    two.after(11)
    await roster(b).beat()
    (due,) = await roster(b).take(10, [])
    assert due.former == "a"
    with pytest.raises(StoreError):  # its connections were ended
        await a.commit(claim, Outcome(Status(sync="Synced")))
    with pytest.raises(LeaseLostError):
        await a.commit(claim, Outcome(Status(sync="Synced")))
    with pytest.raises(LeaseLostError):
        await a.commit(claim, passed(claim))
    assert (await claimed(b)).object.status.sync == "Unknown"


async def test_a_daemon_that_wakes_up_goes_on_with_what_nobody_took(two: Two) -> None:
    a = await two.daemon("a")
    await two.declare(a, job())
    claim = await claimed(a)
    two.after(600)
    assert await roster(a).beat() == 1
    await a.commit(claim, Outcome(Status(sync="Synced"), next=Next(after=5)))


async def test_a_restart_frees_at_once_what_the_former_process_held(two: Two) -> None:
    first = await two.daemon("a")
    await two.declare(first, job())
    claim = await claimed(first)
    again = await two.daemon("a")
    assert await taken(again) == [TRAIN]
    with pytest.raises(StoreError):  # it may only notice that its connections were ended
        await roster(first).beat()
    with pytest.raises(LeaseLostError):
        await roster(first).beat()
    first = await two.daemon("a")
    with pytest.raises(LeaseLostError):
        await first.commit(claim, passed(claim))


async def test_who_asks_while_a_pass_runs_is_not_forgotten(two: Two) -> None:
    """The pass says in five minutes, and somebody said now."""
    a = await two.daemon("a")
    await two.declare(a, job())
    claim = await claimed(a)
    await a.request(SyncObject(TRAIN, "t", "ann"), two.now)
    await a.commit(claim, passed(claim))
    assert await taken(a) == [TRAIN]
    again = await claimed(a)
    await a.commit(again, passed(again))
    assert await taken(a) == []
    assert await roster(a).next_due() == pytest.approx(300)
    two.after(301)
    assert await taken(a) == [TRAIN]


async def test_news_makes_due_what_stands_on_it(two: Two) -> None:
    a = await two.daemon("a")
    await two.declare(a, job(), model(), deployment())
    for key in await taken(a):
        claim = await claimed(a, key)
        await a.commit(claim, passed(claim))
    claim = await claimed(a)
    outcome = Outcome(Status(sync="Synced"), next=Next(after=300, news=True))
    await a.commit(claim, outcome)
    assert await taken(a) == [Key.parse("Model/wine")]


async def test_passes_on_objects_that_wake_each_other_do_not_block_each_other(two: Two) -> None:
    """Locks are taken in one order, whoever begins."""
    daemons = [await two.daemon(name) for name in "abcd"]
    keys = [Key.parse("Job/train"), Key.parse("Model/wine"), Key.parse("Deployment/wine")]
    await two.declare(daemons[0], job(), model(), deployment())

    async def work(store: PostgresStore, round_: int) -> None:
        for key in keys:
            claim = await store.claim(key)
            if claim is not None:
                status = Status(sync="Synced" if round_ % 2 else "OutOfSync")
                others = tuple(k for k in keys if k != key)
                await store.commit(claim, Outcome(status, next=Next(0, news=True, wake=others)))

    async with asyncio.timeout(60):
        for round_ in range(15):
            await asyncio.gather(*(work(store, round_) for store in daemons))


async def test_edits_go_first_and_full_lanes_wait(two: Two) -> None:
    a = await two.daemon("a")
    await two.declare(a, job("old"), job("new"))
    for key in await taken(a):
        claim = await claimed(a, key)
        await a.commit(claim, passed(claim, 10))
    two.after(60)
    await roster(a).beat()
    await roster(a).look([Key.parse("Job/old")], Priority.EDIT)
    assert await roster(a).take(10, ["default/local"]) == []
    found = await roster(a).take(1, ["default/other"])
    assert [due.key for due in found] == [Key.parse("Job/old")]


async def test_what_was_not_begun_is_given_back(two: Two) -> None:
    a, b = await two.daemon("a"), await two.daemon("b")
    await two.declare(a, job(), job("more"))
    keys = await taken(a)
    await roster(a).give_back(keys[:1])
    assert await taken(b) == keys[:1]
    await roster(a).leave()
    assert await taken(b) == keys[1:]


async def test_one_daemon_at_a_time_writes_for_a_source(two: Two) -> None:
    a, b = await two.daemon("a"), await two.daemon("b")
    await two.declare(a, job())
    with pytest.raises(LeaseLostError, match="is followed by a"):
        await two.declare(b, kept_file())
    two.after(31)
    await roster(b).beat()
    await two.declare(b, kept_file())
    with pytest.raises(LeaseLostError, match="is followed by b"):
        await two.declare(a, job())


async def test_hints_say_that_something_is_due(two: Two) -> None:
    a, b = await two.daemon("a"), await two.daemon("b")
    async with asyncio.timeout(30), roster(b).hints() as hints:
        told = {await anext(hints), await anext(hints)}
        assert told == {"due", "events"}, "at first, look at everything"
        await two.declare(a, job())
        assert await anext(hints) == "due"


async def test_a_reader_of_events_passes_none_over(two: Two) -> None:
    """However the commits of two daemons fall together, positions come in their order."""
    a, b = await two.daemon("a"), await two.daemon("b")
    names = [f"j{i}" for i in range(12)]
    await two.declare(a, *(job(name) for name in names))
    seen: list[str] = []
    position = 0

    async def work(store: PostgresStore, name: str) -> None:
        claim = await claimed(store, Key.parse(f"Job/{name}"))
        events = tuple(
            condition_event(claim.object.uid, claim.object.key, seq) for seq in (1, 2, 3)
        )
        await store.commit(claim, Outcome(Status(), events=events))

    writing = asyncio.gather(*(work((a, b)[i % 2], name) for i, name in enumerate(names)))
    async with asyncio.timeout(60):
        while len(seen) < 3 * len(names):
            for found, event in await b.events(position, 2):
                assert found > position
                position = found
                seen.append(event.id)
            await asyncio.sleep(0)
    await writing
    assert len(set(seen)) == 3 * len(names)


async def test_a_silent_daemon_s_locks_are_broken(two: Two, postgres: Postgres) -> None:
    """Its process is stopped between two messages: the server waits for the second one."""
    a, b = await two.daemon("a"), await two.daemon("b")
    await two.declare(a, job())
    stopped = await asyncpg.connect(
        two.address.url, server_settings={"application_name": "windlass a"}
    )
    await stopped.execute("BEGIN; SELECT pg_advisory_xact_lock(87013002)")
    two.after(31)
    await roster(b).beat()
    assert await taken(b) == [TRAIN]
    claim = await claimed(b)
    async with asyncio.timeout(20):
        await b.commit(
            claim,
            Outcome(Status(), events=(condition_event(claim.object.uid, claim.object.key, 1),)),
        )
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await stopped.execute("COMMIT")
    stopped.terminate()


async def test_what_was_taken_and_never_heard_of_is_found_in_the_books(two: Two) -> None:
    """The answer to a take got lost: the rows are ours, and nobody else will see to them."""
    a = await two.daemon("a")
    await two.declare(a, job())
    await taken(a)
    metrics = Metrics()
    queue = WorkQueue(lambda key: ("", 8), metrics.workqueue)
    agenda = SharedAgenda(roster(a), queue, lambda key, lane: None, metrics.sharing)
    await agenda.recollect()
    assert queue.holds(TRAIN)
    await agenda.recollect()
    assert len(queue) == 1


async def test_what_a_backend_tells_is_due_at_once_for_whoever_takes_it(two: Two) -> None:
    a, b = await two.daemon("a"), await two.daemon("b")
    await two.declare(a, job())
    await taken(a)
    claim = await claimed(a)
    await a.commit(claim, passed(claim))
    assert await taken(b) == []
    metrics = Metrics()
    queue = WorkQueue(lambda key: ("", 8), metrics.workqueue)
    agenda = SharedAgenda(roster(a), queue, lambda key, lane: None, metrics.sharing)
    await agenda.told([TRAIN])
    assert await taken(b) == [TRAIN]
    a.terminate()
    await agenda.told([TRAIN])  # nobody can write it down: it is looked at in its own time


async def test_all_see_who_shares_the_store(two: Two) -> None:
    a, b = await two.daemon("a"), await two.daemon("b")
    await two.declare(a, job())
    await taken(b)
    await roster(a).bind("default/local", "")
    first, second = await roster(b).colleagues()
    assert (first.name, first.alive, first.leases) == ("a", True, ("source:folder:/s",))
    assert first.targets == ("default/local",)
    assert (second.name, second.held) == ("b", 1)
    home = await roster(b).bind("default/local", "")
    assert (home.daemon, home.mine, home.alive) == ("a", False, True)
    moved = await roster(b).bind("default/local", "b")
    assert (moved.daemon, moved.mine) == ("b", True)
