"""Writes that wait together share a commit, and nothing else."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from windlass.clock import utc_now
from windlass.store.base import Snapshot, StoreError
from windlass.store.database import NOTES, Database
from windlass.store.sqlite import SqliteStore
from windlass_adapters.testing.documents import job
from windlass_schemas import Key

FULL = 2
"""``PRAGMA synchronous``: a commit waits for the disk."""


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    found = await Database.open(tmp_path / "windlass.db")
    yield found
    await found.close()


def put(database: Database, key: str, value: str = "x") -> str:
    """A transaction of one row."""
    with database.transaction():
        database.one("put_meta", key=key, value=value)
    return key


def keys(database: Database) -> list[str]:
    return [row["key"] for row in database.connection.execute("SELECT key FROM meta ORDER BY key")]


async def test_writes_that_wait_together_are_all_there_afterwards(database: Database) -> None:
    """Each caller gets its own result."""
    names = [f"k{i}" for i in range(50)]
    assert await asyncio.gather(*(database.write(put, database, n) for n in names)) == names
    assert await database.run(keys, database) == sorted(names)


@pytest.mark.parametrize(("took", "commits"), [(0.0, 1 + 3), (3600.0, 1 + 1)])
async def test_a_commit_takes_what_is_written_while_the_disk_takes_one(
    took: float, commits: int, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty wait for the first: a quick disk gets them a few at a time, a slow one at once."""
    committed = 0

    def commit() -> None:
        nonlocal committed
        committed += 1
        database.connection.execute("COMMIT")
        database._disk = took

    monkeypatch.setattr(database, "_commit", commit)
    await asyncio.gather(*(database.write(put, database, f"k{i}") for i in range(21)))
    assert committed == commits


async def test_a_write_that_fails_takes_nothing_of_the_others_along(database: Database) -> None:
    """What it had written itself is undone; the ones before and after it stand."""

    def half() -> None:
        with database.transaction():
            database.one("put_meta", key="half", value="x")
            raise StoreError("no")

    done = await asyncio.gather(
        database.write(put, database, "before"),
        database.write(half),
        database.write(put, database, "after"),
        return_exceptions=True,
    )
    assert done[0] == "before"
    assert str(done[1]) == "no"
    assert done[2] == "after"
    assert await database.run(keys, database) == ["after", "before"]


async def test_nobody_hears_of_a_success_that_the_disk_did_not_take(database: Database) -> None:
    """A disk that fills up in the middle fails all that shared the commit; later writes work."""
    await database.run(database.connection.execute, "PRAGMA max_page_count = 40")
    writes = [database.write(put, database, f"k{i}", "x" * 9000) for i in range(40)]
    done = await asyncio.gather(*writes, return_exceptions=True)
    told = [str(each) for each in done if isinstance(each, str)]
    assert any(isinstance(each, StoreError) for each in done)
    assert await database.run(keys, database) == sorted(told)
    await database.run(database.connection.execute, "PRAGMA max_page_count = 10000")
    assert await database.write(put, database, "later") == "later"


async def test_a_note_outlives_its_process_and_waits_for_no_disk(tmp_path: Path) -> None:
    """It is in the file when it returns, without a sync; the commits after it wait as ever."""
    file = tmp_path / "windlass.db"
    database = await Database.open(file)
    said: list[str] = []
    database.connection.set_trace_callback(said.append)
    assert await database.note(lambda: put(database, "noted")) == "noted"
    assert [each for each in said if each.startswith("PRAGMA synchronous")] == [
        "PRAGMA synchronous = NORMAL",
        "PRAGMA synchronous = FULL",
    ]
    with closing(sqlite3.connect(file)) as other:  # as after a kill: nobody has closed the file
        assert other.execute("SELECT key FROM meta WHERE key = 'noted'").fetchall() == [("noted",)]
    assert await _level(database) == FULL
    await database.close()


async def test_a_note_that_fails_leaves_the_writes_after_it_safe(database: Database) -> None:
    """What it wrote is undone, and a later write waits for the disk again."""

    def half() -> None:
        with database.transaction():
            database.one("put_meta", key="half", value="x")
            raise StoreError("no")

    with pytest.raises(StoreError, match="no"):
        await database.note(half)
    assert await _level(database) == FULL
    assert await database.run(keys, database) == []


async def test_a_note_comes_after_what_was_asked_for_before_it(database: Database) -> None:
    """Beside a write that is under way it is one of those that wait."""
    order: list[str] = []

    def noted(key: str) -> None:
        order.append(put(database, key))

    async with asyncio.TaskGroup() as group:
        group.create_task(database.write(noted, "first"))
        group.create_task(database.write(noted, "second"))
        await asyncio.sleep(0)  # the first is with the disk, the second waits
        group.create_task(database.note(lambda: noted("third")))
    assert order == ["first", "second", "third"]
    assert await database.run(keys, database) == ["first", "second", "third"]


async def test_who_waits_for_the_disk_gets_its_word_for_the_notes_before(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All who wait share one word; a note that comes meanwhile needs another, and no note none."""
    asked, may_go = 0, threading.Event()

    def slow(_descriptor: int) -> None:
        nonlocal asked
        asked += 1
        assert may_go.wait(20)

    monkeypatch.setattr(os, "fdatasync", slow)
    await database.durable()
    assert asked == 0
    await database.note(lambda: put(database, "first"))
    async with asyncio.TaskGroup() as group:
        waiting = [group.create_task(database.durable()) for _ in range(3)]
        while not asked:
            await asyncio.sleep(0.001)
        await database.note(lambda: put(database, "second"))  # held up by nothing
        waiting.append(group.create_task(database.durable()))
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        may_go.set()
    assert asked == 2
    await database.durable()
    assert asked == 2


async def test_a_commit_that_waits_takes_the_notes_before_it_along(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is one file; a commit without a change does not ask the disk."""
    asked: list[int] = []
    monkeypatch.setattr(os, "fdatasync", asked.append)
    await database.note(lambda: put(database, "noted"))
    await database.write(put, database, "written")
    await database.durable()
    assert asked == []
    await database.note(lambda: put(database, "noted again"))
    await database.write(lambda: None)
    await database.durable()
    assert len(asked) == 1


async def test_a_disk_that_has_refused_the_log_is_given_all_of_it_in_the_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one refusal, that it takes the log the next time says nothing of what it lost."""
    file = tmp_path / "windlass.db"
    database = await Database.open(file)

    def refuse(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    await database.note(lambda: put(database, "noted"))
    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", refuse)
        with pytest.raises(StoreError, match="Input/output error"):
            await database.durable()
    copy = tmp_path / "without-log.db"
    await database.durable()
    copy.write_bytes(file.read_bytes())
    with closing(sqlite3.connect(copy)) as other:
        assert other.execute("SELECT key FROM meta WHERE key = 'noted'").fetchall() == [("noted",)]
    await database.close()


async def test_notes_without_end_are_brought_to_the_disk_in_between(database: Database) -> None:
    """Or the log would grow for as long as nobody waits."""
    said: list[str] = []
    database.connection.set_trace_callback(said.append)
    for number in range(NOTES + 1):
        await database.note(partial(put, database, f"n{number}"))
    assert said.count("PRAGMA synchronous = NORMAL") == NOTES


async def _level(database: Database) -> int:
    rows = await database.run(lambda: database.connection.execute("PRAGMA synchronous").fetchall())
    return int(rows[0][0])


async def test_a_caller_that_gives_up_leaves_its_transaction_whole(database: Database) -> None:
    """Done or not begun, and the next one is not disturbed."""
    given_up = asyncio.ensure_future(database.write(put, database, "a"))
    await asyncio.sleep(0)
    given_up.cancel()
    assert await database.write(put, database, "b") == "b"
    assert await database.run(keys, database) == ["a", "b"]


async def test_a_damaged_row_concerns_its_own_object_only(tmp_path: Path) -> None:
    """Reading it is a StoreError that says what to do; the others are read as ever."""
    store = await SqliteStore.open(tmp_path / "windlass.db")
    documents = (job("broken"), job("whole"))
    await store.apply(Snapshot("folder:/specs", "r1", "ann", documents), utc_now())
    with closing(sqlite3.connect(tmp_path / "windlass.db")) as other, other:
        other.execute("UPDATE desired SET resource = '{' WHERE name = 'broken'")
    with pytest.raises(StoreError, match=r"cannot be read .* from a backup"):
        await store.get(Key("Job", "default", "broken"))
    assert await store.get(Key("Job", "default", "whole")) is not None
    await store.close()
