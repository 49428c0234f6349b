"""What every store must do with messages, in whatever order and however often they come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from pathlib import Path

import pytest

from rig.stores import Opener
from rig.world import SOURCE, job
from windlass.store.base import Document, Fault, Outcome, Snapshot, StoreError, Transfer
from windlass.store.books import Books
from windlass.store.inbox import Receipt, SpecMessage
from windlass.store.queries import load_queries
from windlass.store.sqlite import SqliteStore
from windlass_schemas import Key, Reason

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TRAIN = Key.parse("Job/train")
CI = "amqp:/ci"
OTHER = "amqp:/other"


@pytest.fixture
async def store(opener: Opener) -> AsyncIterator[Books]:
    opened = await opener()
    yield opened
    await opened.close()


def put(revision: int, document: Document, source: str = CI, id_: str = "") -> SpecMessage:
    return SpecMessage.put(source, id_ or f"m{revision}", revision, document, "ann")


def gone(revision: int, source: str = CI, key: Key = TRAIN) -> SpecMessage:
    return SpecMessage(source, f"d{revision}", revision, key, None, "ann")


def bad(revision: int, source: str = CI, key: Key | None = TRAIN) -> SpecMessage:
    fault = Fault("message.yaml", 3, 1, "spec.comand", f"is no known field in {revision}", key)
    return SpecMessage(source, f"b{revision}", revision, key, None, "ann", (fault,))


async def hear(store: Books, *messages: SpecMessage) -> Sequence[Receipt]:
    return await store.receive(messages, NOW)


async def test_a_message_declares_what_a_file_would(store: Books) -> None:
    """The same document by message and by snapshot is the same object."""
    document = job("train")
    [receipt] = await hear(store, put(7, document))
    found = await store.get(TRAIN)
    assert found is not None
    assert (receipt.verdict, receipt.uid, receipt.generation) == ("accepted", found.uid, 1)
    assert (found.source, found.revision, found.author) == (CI, "7", "ann")
    assert found.digest == document.digest
    assert [entry.action for entry in await store.history(TRAIN, 5)] == ["Declared"]
    [source] = await store.sources()
    assert (source.id, source.revision, source.faults) == (CI, "7", ())


async def test_a_message_is_taken_once_and_answered_each_time(store: Books) -> None:
    """What is delivered again gets the first answer again, and changes nothing."""
    first, again = await hear(store, put(1, job("train")), put(1, job("train")))
    assert (first.verdict, again.verdict) == ("accepted", "duplicate")
    assert (again.uid, again.generation) == (first.uid, 1)
    [later] = await hear(store, put(1, job("train", params={"epochs": 5})))
    assert later.verdict == "duplicate"
    found = await store.get(TRAIN)
    assert found is not None
    assert found.generation == 1


async def test_an_older_revision_is_dropped(store: Books) -> None:
    """The last word counts, and equal revisions of two messages are told apart by no one."""
    await hear(store, put(5, job("train", params={"epochs": 5})))
    [older] = await hear(store, put(4, job("train", params={"epochs": 4})))
    [equal] = await hear(store, put(5, job("train", params={"epochs": 6}), id_="another"))
    assert (older.verdict, equal.verdict) == ("stale", "stale")
    assert "higher revision" in older.message
    found = await store.get(TRAIN)
    assert found is not None
    assert found.revision == "5"


async def test_the_same_document_again_is_no_new_generation(store: Books) -> None:
    """A publisher may repeat itself with a new revision."""
    await hear(store, put(1, job("train")))
    [again] = await hear(store, put(2, job("train")))
    assert (again.verdict, again.generation) == ("unchanged", 1)
    [changed] = await hear(store, put(3, job("train", params={"epochs": 9})))
    assert (changed.verdict, changed.generation) == ("accepted", 2)


async def test_a_deletion_marks_the_object_and_a_late_put_does_not_bring_it_back(
    store: Books,
) -> None:
    """A tombstone outlives the object."""
    await hear(store, put(1, job("train")))
    [going] = await hear(store, gone(3))
    assert going.verdict == "deleting"
    claim = await store.claim(TRAIN)
    assert claim is not None
    assert claim.object.deleting_since is not None
    await store.commit(claim, Outcome(claim.object.status, finalized=True))
    [late] = await hear(store, put(2, job("train")))
    assert late.verdict == "stale"
    assert await store.get(TRAIN) is None
    [anew] = await hear(store, put(4, job("train")))
    assert (anew.verdict, anew.generation) == ("accepted", 1)
    assert anew.uid != going.uid


@pytest.mark.parametrize(("policy", "mark"), [("confirm", "awaiting"), ("never", "skipped")])
async def test_prune_policies_hold_for_messages_too(store: Books, policy: str, mark: str) -> None:
    """A deletion by message is what a vanished file is."""
    await hear(store, put(1, job("train", prune=policy)))
    [kept] = await hear(store, gone(2))
    assert "windlass delete Job/train" in kept.message
    found = await store.get(TRAIN)
    assert found is not None
    assert (found.prune, found.deleting_since) == (mark, None)


async def test_a_bad_message_keeps_the_last_good_version_in_force(store: Books) -> None:
    """Its faults are told of the object, of the source, and in an event; a good one mends them."""
    await hear(store, put(1, job("train")))
    [refused] = await hear(store, bad(2))
    assert refused.verdict == "refused"
    assert refused.reason is Reason.INVALID_SPEC
    assert refused.faults[0].field == "spec.comand"
    found = await store.get(TRAIN)
    assert found is not None
    assert found.revision == "1"
    assert found.faults == (str(refused.faults[0]),)
    assert (await store.sources())[0].faults == found.faults
    [(_, event)] = await store.events(0, 10)
    assert (event.type, event.subject) == ("windlass.message.refused.v1", str(TRAIN))
    assert event.routing_key == "windlass.job.default.train.refused"
    assert "message b2 of amqp:/ci" in event.data.message
    await hear(store, put(3, job("train", params={"epochs": 2})))
    found = await store.get(TRAIN)
    assert found is not None
    assert found.faults == ()
    assert (await store.sources())[0].faults == ()


async def test_the_order_of_arrival_does_not_matter(store: Books) -> None:
    """Good, bad, older and newer words, in every order: the same end."""
    ends = set()
    for number, order in enumerate(permutations(range(4))):
        name = f"train-{number}"
        key = Key("Job", "default", name)
        one, three = job(name, params={"epochs": 1}), job(name, params={"epochs": 3})
        words = (put(1, one), bad(2, key=key), put(3, three), bad(4, key=key))
        for turn in order:
            await hear(store, replace(words[turn], id=f"{name}-{turn}"))
        found = await store.get(key)
        assert found is not None
        ends.add((found.digest, found.revision, found.faults))
    assert ends == {(job(params={"epochs": 3}).digest, "3", (str(bad(4).faults[0]),))}


async def test_refusals_of_one_source_are_numbered_without_a_gap(store: Books) -> None:
    """Also those of messages that say neither who they are from nor what they speak of."""
    await hear(store, bad(1), bad(2, key=None), bad(3), bad(1, source=OTHER))
    events = [event for _, event in await store.events(0, 10)]
    assert [event.data.seq for event in events] == [1, 2, 3, 1]
    assert len({event.id for event in events}) == 4
    assert events[1].subject == "Message/default/unread"
    assert await store.get(TRAIN) is None


async def test_what_cannot_be_trusted_touches_no_object(store: Books) -> None:
    """Nor does it take the id of an honest message."""
    await hear(store, put(1, job("train")))
    liar = replace(bad(9), source="amqp:", id="sha256:0", reason=Reason.SOURCE_UNVERIFIED)
    [refused] = await hear(store, liar)
    assert refused.reason is Reason.SOURCE_UNVERIFIED
    found = await store.get(TRAIN)
    assert found is not None
    assert found.faults == ()
    [honest] = await hear(store, put(2, job("train", params={"epochs": 2})))
    assert honest.verdict == "accepted"


async def test_two_sources_of_one_key_conflict_and_the_first_keeps_it(store: Books) -> None:
    """A snapshot's key is not taken by a message, and the other way round."""
    await store.apply(Snapshot(SOURCE, "r1", "ann", (job("train"),)), NOW)
    [refused] = await hear(store, put(1, job("train", params={"epochs": 9})))
    assert refused.verdict == "conflict"
    assert f"windlass transfer Job/train --to {CI}" in refused.message
    found = await store.get(TRAIN)
    assert found is not None
    assert (found.source, found.conflict, found.generation) == (SOURCE, CI, 1)
    [(_, event)] = await store.events(0, 10)
    assert event.data.reason is Reason.SOURCE_CONFLICT
    [told] = await hear(store, gone(2))
    assert told.verdict == "unchanged"
    found = await store.get(TRAIN)
    assert found is not None
    assert found.conflict == ""


async def test_a_key_that_is_let_go_is_taken_by_the_one_who_claimed_it(store: Books) -> None:
    """What the other source said last comes into force; what it has deleted does not."""
    await store.apply(Snapshot(SOURCE, "r1", "ann", (job("train"), job("other"))), NOW)
    await hear(store, put(1, job("train", params={"epochs": 9})))
    assert await store.retake(TRAIN, CI, NOW) == ()
    await store.apply(Snapshot(SOURCE, "r2", "ann", (job("other"),)), NOW)
    claim = await store.claim(TRAIN)
    assert claim is not None
    await store.commit(claim, Outcome(claim.object.status, finalized=True))
    assert await store.retake(TRAIN, CI, NOW) == (TRAIN,)
    found = await store.get(TRAIN)
    assert found is not None
    assert (found.source, found.generation, found.revision) == (CI, 1, "1")
    assert found.digest == job("train", params={"epochs": 9}).digest


async def test_a_transfer_changes_the_owner_in_one_step(store: Books) -> None:
    """The new owner's last word comes into force; the old one is the one in conflict now."""
    await store.apply(Snapshot(SOURCE, "r1", "ann", (job("train"),)), NOW)
    await hear(store, put(4, job("train", params={"epochs": 9})))
    assert await store.request(Transfer(TRAIN, CI, "bob"), NOW) == (TRAIN,)
    found = await store.get(TRAIN)
    assert found is not None
    assert (found.source, found.conflict, found.generation) == (CI, SOURCE, 2)
    assert (found.revision, found.digest) == ("4", job("train", params={"epochs": 9}).digest)
    done = await store.history(TRAIN, 1)
    assert (done[0].action, done[0].author) == ("Transferred", "bob")
    assert done[0].message == f"from {SOURCE} to {CI}"
    await store.apply(Snapshot(SOURCE, "r2", "ann", ()), NOW)
    found = await store.get(TRAIN)
    assert found is not None
    assert (found.source, found.conflict, found.deleting_since) == (CI, "", None)


async def test_a_transfer_back_waits_for_the_next_snapshot(store: Books) -> None:
    """A snapshot source's own document comes into force when it is read again."""
    await hear(store, put(4, job("train", params={"epochs": 9})))
    documents = (job("train"), job("other"))
    await store.apply(Snapshot(SOURCE, "r1", "ann", documents), NOW)
    await store.request(Transfer(TRAIN, SOURCE, "bob"), NOW)
    await store.apply(Snapshot(SOURCE, "r1", "ann", documents), NOW)
    found = await store.get(TRAIN)
    assert found is not None
    assert (found.source, found.conflict, found.digest) == (SOURCE, CI, job("train").digest)
    [told] = await hear(store, put(5, job("train", params={"epochs": 10})))
    assert told.verdict == "conflict"


async def test_a_snapshot_that_claims_a_message_s_key_is_told_so(store: Books) -> None:
    """Its source says which document, who owns the key, and what to do."""
    await hear(store, put(4, job("train")))
    await store.apply(Snapshot(SOURCE, "r1", "ann", (job("train"), job("other"))), NOW)
    found = {state.id: state for state in await store.sources()}
    (told,) = found[SOURCE].faults
    assert told.startswith(f"train.yaml:1 SourceConflict: {CI} owns Job/train")
    assert f"windlass transfer Job/train --to {SOURCE}" in told
    assert await store.get(Key.parse("Job/other")) is not None


async def test_a_transfer_to_a_source_that_does_not_declare_the_key_is_refused(
    store: Books,
) -> None:
    """It would be pruned at once."""
    await store.apply(Snapshot(SOURCE, "r1", "ann", (job("train"),)), NOW)
    for to, why in ((CI, "does not declare"), (SOURCE, "owns Job/train already")):
        with pytest.raises(StoreError, match=why):
            await store.request(Transfer(TRAIN, to, "bob"), NOW)


async def test_answers_are_forgotten_after_a_week(store: Books) -> None:
    """The revision still protects what is declared."""
    await hear(store, put(1, job("train")))
    later = NOW + timedelta(days=8)
    [other] = await store.receive([put(1, job("other"), id_="x")], later)
    [again] = await store.receive([put(1, job("train"))], later)
    assert (other.verdict, again.verdict) == ("accepted", "stale")


async def test_a_closed_store_has_everything_that_was_answered(opener: Opener) -> None:
    """A receipt is given after the disk has it."""
    store = await opener()
    await hear(store, put(1, job("train")))
    await store.close()
    store = await opener()
    [again] = await hear(store, put(1, job("train")))
    assert again.verdict == "duplicate"
    await store.close()


async def test_what_a_source_has_said_well_is_not_read_to_know_what_it_has_said_badly(
    tmp_path: Path,
) -> None:
    """Each message would take longer the more there were before it."""
    store = await SqliteStore.open(tmp_path / "windlass.db")
    text = load_queries("sqlite")["bad_words"]
    steps = store._db.connection.execute(f"EXPLAIN QUERY PLAN {text}", {"source": CI}).fetchall()
    assert [row["detail"] for row in steps] == ["SEARCH spoken USING INDEX spoken_badly (source=?)"]
    await store.close()
