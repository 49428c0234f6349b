"""What every store must do. One suite; a database joins by one more fixture parameter."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rig.events import condition_event
from rig.postgres import Postgres, PsqlError, member
from rig.stores import Opener
from rig.world import SOURCE, deployment, job, model
from windlass.store.address import Address
from windlass.store.base import (
    Approve,
    Claim,
    Delete,
    Document,
    Entry,
    ExternalRecord,
    Fault,
    Hold,
    LeaseLostError,
    Outcome,
    RecordState,
    ResumeObject,
    Snapshot,
    Store,
    StoreError,
    SuspendObject,
    SyncObject,
    Written,
)
from windlass.store.lock import FolderLock
from windlass.store.postgres import PostgresStore
from windlass.store.sqlite import SqliteStore
from windlass_adapters.base import Wanted
from windlass_schemas import (
    CloudEvent,
    Key,
    Reason,
    Status,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TRAIN = Key.parse("Job/train")


@pytest.fixture
async def store(opener: Opener) -> AsyncIterator[Store]:
    opened = await opener()
    yield opened
    await opened.close()


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await SqliteStore.open(tmp_path / "windlass.db")
    yield opened
    await opened.close()


def snapshot(*documents: Document, revision: str = "r1", **more: object) -> Snapshot:
    source = str(more.get("source", SOURCE))
    faults = more.get("faults", ())
    assert isinstance(faults, tuple)
    return Snapshot(source, revision, "ann", documents, faults)


async def claimed(store: Store, key: Key = TRAIN) -> Claim:
    claim = await store.claim(key)
    assert claim is not None
    return claim


def record(name: str = "run-1", **changes: object) -> ExternalRecord:
    wanted = Wanted("run", name, "sha256:" + "1" * 64, {"command": ["x"]}, completes=True)
    made = ExternalRecord(target="default/local", wanted=wanted, state=RecordState.INTENDED)
    return replace(made, **changes)  # type: ignore[arg-type]  # names of fields, by the test


def entry(action: str = "Created") -> Entry:
    return Entry(NOW, TRAIN, "u", 1, "r1", "ann", action, "ok", "because", 0.1)


def event(claim: Claim, seq: int) -> CloudEvent:
    return condition_event(claim.object.uid, TRAIN, seq, NOW)


async def test_a_generation_rises_only_when_the_digest_changes(store: Store) -> None:
    assert (await store.apply(snapshot(job()), NOW)).changed == (TRAIN,)
    assert (await store.apply(snapshot(job(), revision="r2"), NOW)).changed == ()
    first = await store.get(TRAIN)
    assert first is not None
    assert (first.generation, first.revision) == (1, "r1")
    await store.apply(snapshot(job(params={"c": 2}), revision="r3"), NOW + timedelta(seconds=5))
    second = await store.get(TRAIN)
    assert second is not None
    assert (second.generation, second.revision, second.uid) == (2, "r3", first.uid)
    assert second.generation_at == NOW + timedelta(seconds=5)


async def test_of_a_set_that_says_nearly_the_same_only_the_rest_is_taken(store: Store) -> None:
    jobs = [job(f"j{i}") for i in range(30)]
    await store.apply(snapshot(*jobs), NOW)
    assert (await store.apply(snapshot(*reversed(jobs), revision="r2"), NOW)).changed == ()
    name = '"name":"j3"'
    text = jobs[3].canonical.replace(name, f'"labels":{{"x":"y"}},{name}')
    labelled = replace(jobs[3], declares=Written(jobs[3].key, text))
    moved, edited = replace(jobs[4], line=9), job("j5", params={"c": 2})
    said = [*jobs[:3], labelled, moved, edited, *jobs[6:]]
    applied = await store.apply(snapshot(*said, revision="r3"), NOW)
    assert {key.name for key in applied.changed} == {"j3", "j4", "j5"}
    found = {o.key.name: (o.generation, o.line) for o in await store.list()}
    assert (found["j4"], found["j5"], found["j6"]) == ((1, 9), (2, 1), (1, 1))


async def test_the_breaker_counts_what_is_as_it_was_too(store: Store) -> None:
    jobs = [job(f"j{i:02}") for i in range(40)]
    await store.apply(snapshot(*jobs), NOW)
    applied = await store.apply(snapshot(*jobs[8:], revision="r2"), NOW)
    assert (len(applied.pruning), applied.blocked) == (8, ())
    applied = await store.apply(snapshot(*jobs[17:], revision="r3"), NOW)
    assert (applied.pruning, len(applied.blocked)) == ((), 9)


async def test_a_fault_beside_what_is_unchanged_is_marked_and_unmarked(store: Store) -> None:
    jobs = [job(f"j{i}") for i in range(3)]
    await store.apply(snapshot(*jobs), NOW)
    key = Key.parse("Job/j1")
    fault = Fault("x.yaml", 3, 5, "spec", "unknown field", key)
    broken = snapshot(jobs[0], jobs[2], revision="r2", faults=(fault,))
    assert (await store.apply(broken, NOW)).changed == (key,)
    assert (await store.apply(broken, NOW)).changed == ()
    found = await store.get(key)
    assert found is not None
    assert found.faults == (str(fault),)
    assert (await store.apply(snapshot(*jobs, revision="r3"), NOW)).changed == (key,)
    found = await store.get(key)
    assert found is not None
    assert found.faults == ()


async def test_what_vanishes_is_marked_and_comes_back_when_declared_again(store: Store) -> None:
    await store.apply(snapshot(job(), job("keep")), NOW)
    assert (await store.apply(snapshot(job("keep"), revision="r2"), NOW)).pruning == (TRAIN,)
    gone = await store.get(TRAIN)
    assert gone is not None
    assert gone.deleting_since == NOW
    await store.apply(snapshot(job(), job("keep"), revision="r3"), NOW)
    back = await store.get(TRAIN)
    assert back is not None
    assert back.deleting_since is None


async def test_any_fault_in_a_revision_stops_all_pruning(store: Store) -> None:
    await store.apply(snapshot(job(), job("keep")), NOW)
    fault = Fault("x.yaml", 1, 1, "", "is broken")
    applied = await store.apply(snapshot(job("keep"), revision="r2", faults=(fault,)), NOW)
    assert applied.pruning == ()
    (source,) = await store.sources()
    assert source.faults == ("x.yaml:1:1 is broken",)


async def test_dependents_are_those_whose_specs_refer_to_a_key(store: Store) -> None:
    await store.apply(snapshot(job(), model(), deployment()), NOW)
    assert await store.dependents(TRAIN) == [Key.parse("Model/wine")]
    assert await store.dependents(Key.parse("Model/wine")) == [Key.parse("Deployment/wine")]
    await store.apply(snapshot(job(), model(source="other"), deployment(), revision="r2"), NOW)
    assert await store.dependents(TRAIN) == []


async def test_an_intent_survives_the_store_and_an_outcome_is_all_or_nothing(
    store: Store, opener: Opener
) -> None:
    await store.apply(snapshot(job()), NOW)
    claim = await claimed(store)
    await store.intend(claim, record(), entry())
    done = replace(record(), state=RecordState.CREATED, external_id="run-1")
    outcome = Outcome(
        Status(sync="Synced"), (done,), None, (event(claim, 1), event(claim, 2)), (entry(),)
    )
    await store.commit(claim, outcome)
    await store.close()
    again = await opener()
    found = await again.get(TRAIN)
    assert found is not None
    assert (found.externals, found.status.sync, found.seq) == ((done,), "Synced", 2)
    assert [e.data.seq for _, e in await again.events(0, 10)] == [1, 2]
    assert [e.action for e in await again.history(TRAIN, 10)] == ["Created", "Created", "Declared"]
    assert again.install == store.install
    await again.close()


async def test_a_writer_that_was_overtaken_writes_nothing(store: Store) -> None:
    await store.apply(snapshot(job()), NOW)
    late, early = await claimed(store), await claimed(store)
    await store.commit(early, Outcome(Status(), events=(event(early, 1),)))
    with pytest.raises(LeaseLostError):
        await store.commit(late, Outcome(Status(sync="Synced"), events=(event(late, 1),)))
    found = await store.get(TRAIN)
    assert found is not None
    assert found.status.sync == "Unknown"


async def test_the_former_owner_of_a_database_cannot_write(store: Store, opener: Opener) -> None:
    await store.apply(snapshot(job()), NOW)
    claim = await claimed(store)
    newer = await opener()
    with pytest.raises(LeaseLostError):
        await store.intend(claim, record(), entry())
    with pytest.raises(LeaseLostError):
        await store.commit(claim, Outcome(Status(sync="Synced")))
    with pytest.raises(LeaseLostError):
        await store.apply(snapshot(), NOW)
    await newer.intend(await claimed(newer), record(), entry())
    await newer.close()


async def test_an_outcome_that_changes_nothing_writes_nothing(opener: Opener) -> None:
    store = await opener()
    await store.apply(snapshot(job()), NOW)
    claim = await claimed(store)
    await store.commit(claim, Outcome(Status(sync="Synced")))
    before = store.writes
    claim = await claimed(store)
    await store.commit(claim, Outcome(claim.object.status, hold=claim.object.hold))
    assert store.writes == before
    await store.close()


async def test_one_external_has_one_owner(store: Store) -> None:
    await store.apply(snapshot(job(), job("other")), NOW)
    await store.intend(await claimed(store), record(), entry())
    other = await claimed(store, Key.parse("Job/other"))
    with pytest.raises(StoreError, match="belongs to another object"):
        await store.intend(other, record(), entry())


async def test_what_was_declared_again_meanwhile_is_not_finalized(store: Store) -> None:
    await store.apply(snapshot(job(), job("keep")), NOW)
    await store.apply(snapshot(job("keep")), NOW)
    claim = await claimed(store)
    await store.apply(snapshot(job(), job("keep")), NOW)
    with pytest.raises(LeaseLostError, match="declared again"):
        await store.commit(claim, Outcome(Status(), finalized=True))
    assert await store.get(claim.object.key) is not None


async def test_a_finalized_object_leaves_its_history_and_events(store: Store) -> None:
    await store.apply(snapshot(job(), job("keep")), NOW)
    await store.apply(snapshot(job("keep")), NOW)
    claim = await claimed(store)
    await store.intend(claim, record(), entry())
    gone = replace(record(), state=RecordState.GONE)
    await store.commit(
        claim,
        Outcome(
            Status(),
            (gone,),
            events=(event(claim, 1),),
            history=(entry("Removed"),),
            finalized=True,
        ),
    )
    assert await store.get(TRAIN) is None
    assert (await store.history(TRAIN, 1))[0].action == "Removed"
    assert len(await store.events(0, 10)) == 1


async def test_holds_are_kept_with_their_attempt(store: Store) -> None:
    await store.apply(snapshot(job()), NOW)
    hold = Hold("sha256:x", Reason.BACKEND_UNAVAILABLE, "down", NOW, 3, False)
    await store.commit(await claimed(store), Outcome(Status(attempt=3), hold=hold))
    assert (await claimed(store)).object.hold == hold


async def test_the_outbox_forgets_what_the_bus_has_confirmed(store: Store) -> None:
    await store.apply(snapshot(job()), NOW)
    claim = await claimed(store)
    await store.commit(claim, Outcome(Status(), events=(event(claim, 1), event(claim, 2))))
    waiting = await store.unpublished(10)
    await store.published([waiting[0][0]], NOW)
    assert [e.data.seq for _, e in await store.unpublished(10)] == [2]
    await store.published(None, NOW)
    assert await store.unpublished(10) == []
    assert len(await store.events(0, 10)) == 2


async def test_suspend_resume_and_sync_are_kept_and_put_into_the_history(store: Store) -> None:
    await store.apply(snapshot(job()), NOW)
    await store.request(SuspendObject(TRAIN, "audit", "bob"), NOW)
    assert (await claimed(store)).object.suspended == "audit"
    await store.request(ResumeObject(TRAIN, "bob"), NOW)
    await store.request(SyncObject(TRAIN, "t1", "bob"), NOW)
    found = (await claimed(store)).object
    assert (found.suspended, found.sync_token) == ("", "t1")
    actions = [e.action for e in await store.history(TRAIN, 3)]
    assert actions == ["SyncRequested", "Resumed", "Suspended"]


async def test_a_declared_object_is_not_deleted_by_hand(store: Store) -> None:
    await store.apply(snapshot(job()), NOW)
    with pytest.raises(StoreError, match=r"train\.yaml:1 .* remove it there and commit"):
        await store.request(Delete(TRAIN, "bob"), NOW)
    with pytest.raises(StoreError, match="there is no Job/none"):
        await store.request(Delete(Key.parse("Job/none"), "bob"), NOW)


async def test_an_object_whose_source_is_lost_can_be_deleted_by_hand(store: Store) -> None:
    await store.apply(snapshot(job()), NOW)
    await store.fail_source(SOURCE, "the repository is gone", NOW)
    assert await store.request(Delete(TRAIN, "bob"), NOW) == (TRAIN,)
    assert (await claimed(store)).object.deleting_since == NOW


async def test_approve_names_what_waits_when_the_revision_is_wrong(store: Store) -> None:
    await store.apply(snapshot(job()), NOW)
    await store.apply(snapshot(revision="abcdef123456"), NOW)
    with pytest.raises(StoreError, match="waiting: abcdef123456"):
        await store.request(Approve("zzz", "bob"), NOW)
    assert await store.request(Approve("abcdef", "bob"), NOW) == (TRAIN,)


async def test_history_cannot_be_changed(embedded: SqliteStore, tmp_path: Path) -> None:
    await embedded.apply(snapshot(job()), NOW)
    with sqlite3.connect(tmp_path / "windlass.db") as other:
        for statement in ("UPDATE history SET entry = ''", "DELETE FROM history"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                other.execute(statement)
    other.close()


async def test_a_newer_schema_is_refused(embedded: SqliteStore, tmp_path: Path) -> None:
    await embedded.close()
    with sqlite3.connect(tmp_path / "windlass.db") as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(StoreError, match="start the newer version"):
        await SqliteStore.open(tmp_path / "windlass.db")


async def test_a_file_that_is_no_database_is_refused_with_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "windlass.db"
    file.write_bytes(b"not a database, really not" * 100)
    with pytest.raises(StoreError, match="move it away to start anew"):
        await SqliteStore.open(file)


async def test_a_full_database_says_so_and_loses_nothing(embedded: SqliteStore) -> None:
    await embedded.apply(snapshot(job()), NOW)
    pages = embedded._db.connection.execute("PRAGMA page_count").fetchone()[0]
    embedded._db.connection.execute(f"PRAGMA max_page_count = {pages}")
    many = [job(f"j{i}") for i in range(2000)]
    with pytest.raises(StoreError, match="make room on the disk"):
        await embedded.apply(snapshot(job(), *many, revision="r2"), NOW)
    assert [o.key for o in await embedded.list()] == [TRAIN]
    embedded._db.connection.execute("PRAGMA max_page_count = 1000000")
    await embedded.apply(snapshot(job(), *many, revision="r2"), NOW)
    assert len(await embedded.list()) == 2001


async def test_a_cancelled_caller_leaves_whole_transactions(store: Store) -> None:
    await store.apply(snapshot(job()), NOW)
    for _ in range(20):
        claim = await claimed(store)
        writing = asyncio.ensure_future(
            store.commit(claim, Outcome(Status(), events=(event(claim, claim.object.seq + 1),)))
        )
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await store.sources()  # its turn comes after what is still being written
    seqs = [e.data.seq for _, e in await store.events(0, 100)]
    found = await store.get(TRAIN)
    assert found is not None
    assert seqs == list(range(1, found.seq + 1))


def test_a_second_process_hears_who_holds_the_state_folder(tmp_path: Path) -> None:
    with (
        FolderLock(tmp_path / "windlass.lock"),
        pytest.raises(StoreError, match=r"in use by another windlass \(process \d+, since 20"),
    ):
        FolderLock(tmp_path / "windlass.lock")
    FolderLock(tmp_path / "windlass.lock").release()


async def test_many_daemons_that_start_at_once_make_one_schema(postgres: Postgres) -> None:
    address = Address.parse(postgres.database())
    opened = await asyncio.gather(*(PostgresStore.open(address, member(f"d{i}")) for i in range(6)))
    assert len({store.install for store in opened}) == 1
    for store in opened:
        await store.close()


async def test_a_newer_shared_schema_is_refused(postgres: Postgres) -> None:
    url = postgres.database()
    await (await PostgresStore.open(Address.parse(url), member())).close()
    postgres.execute("INSERT INTO windlass.schema_version VALUES (99)", url.rpartition("/")[2])
    with pytest.raises(StoreError, match="start the newer version"):
        await PostgresStore.open(Address.parse(url), member())


async def test_shared_history_cannot_be_changed(postgres: Postgres) -> None:
    url = postgres.database()
    store = await PostgresStore.open(Address.parse(url), member())
    await store.apply(snapshot(job()), NOW)
    for statement in ("UPDATE history SET entry = ''", "DELETE FROM history", "TRUNCATE history"):
        with pytest.raises(PsqlError, match="append-only"):
            postgres.execute(f"SET search_path = windlass; {statement}", url.rpartition("/")[2])
    await store.close()
