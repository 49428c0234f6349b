"""From the embedded store to a shared one: everything arrives, and nothing changes where it was."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import pytest

from rig.command_line import windlass
from rig.postgres import Postgres, member
from windlass.store.address import Address
from windlass.store.base import Object
from windlass.store.lock import FolderLock
from windlass.store.postgres import PostgresStore
from windlass.store.sqlite import DATABASE, SqliteStore
from windlass_adapters.testing.documents import deployment, job, model
from windlass_adapters.testing.world import World
from windlass_schemas import Key


@pytest.fixture
async def old(tmp_path: Path) -> Path:
    """A state folder in which something has happened."""
    state = tmp_path / "state"
    state.mkdir()
    world = await World.make(state)
    await world.declare(job(), model(), deployment())
    await world.until_running()
    world.backend.finish()
    await world.until_ready("Deployment/wine")
    await world.declare(job(params={"c": 2}), model(), deployment())
    await world.until_running()
    await world.close()
    return state


def fingerprint(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


async def objects(store: SqliteStore | PostgresStore) -> Mapping[Key, Object]:
    return {object_.key: object_ for object_ in await store.list()}


async def test_everything_arrives_and_the_old_file_stays_as_it_was(
    old: Path, postgres: Postgres
) -> None:
    """Objects, records, history and events are the same, and numbers go on behind the last one."""
    url = postgres.database()
    before = fingerprint(old / DATABASE)
    ran = await windlass("migrate", "--to", url, "--state", str(old))
    assert ran.code == 0, ran.err
    assert "history" in ran.out
    assert fingerprint(old / DATABASE) == before
    source = await SqliteStore.open(old / DATABASE)
    moved = await PostgresStore.open(Address.parse(url), member())
    assert await objects(moved) == await objects(source)
    assert moved.install == source.install
    assert list(await moved.events(0, 1000)) == list(await source.events(0, 1000))
    assert list(await moved.unpublished(1000)) == list(await source.unpublished(1000))
    for key in await objects(source):
        assert list(await moved.history(key, 100)) == list(await source.history(key, 100))
    assert moved.roster is not None
    assert len(await moved.roster.take(10, [])) == 3, "all of it is due"
    await source.close()
    await moved.close()


async def test_work_goes_on_in_the_new_store(old: Path, postgres: Postgres) -> None:
    """The next event has the next number."""
    url = postgres.database()
    assert (await windlass("migrate", "--to", url, "--state", str(old))).code == 0
    rows = postgres.execute(
        "SELECT max(position) FROM windlass.outbox;"
        "SELECT nextval(pg_get_serial_sequence('windlass.outbox', 'position'))",
        url.rpartition("/")[2],
    ).split()
    assert int(rows[1]) == int(rows[0]) + 1


async def test_a_store_in_use_or_a_database_that_is_not_empty_is_refused(
    old: Path, postgres: Postgres
) -> None:
    url = postgres.database()
    with FolderLock(old / "windlass.lock"):
        ran = await windlass("migrate", "--to", url, "--state", str(old))
    assert ran.code == 1
    assert "is in use by another windlass" in ran.err
    assert (await windlass("migrate", "--to", url, "--state", str(old))).code == 0
    again = await windlass("migrate", "--to", url, "--state", str(old))
    assert again.code == 1
    assert "holds something already" in again.err
    assert "move into an empty one" in again.err


async def test_without_a_store_only_the_schema_is_made(tmp_path: Path, postgres: Postgres) -> None:
    url = postgres.database()
    ran = await windlass("migrate", "--to", url, "--state", str(tmp_path / "none"))
    assert ran.code == 0
    assert "nothing was moved" in ran.err
    found = postgres.execute("SELECT count(*) FROM windlass.desired", url.rpartition("/")[2])
    assert found == "0\n"


async def test_a_file_that_is_no_store_is_refused(tmp_path: Path, postgres: Postgres) -> None:
    sqlite3.connect(tmp_path / DATABASE).close()
    (tmp_path / DATABASE).write_bytes(b"no database at all" * 100)
    ran = await windlass("migrate", "--to", postgres.database(), "--state", str(tmp_path))
    assert ran.code == 1
    assert "cannot be read" in ran.err


async def test_an_address_that_is_none_is_refused_with_an_example(tmp_path: Path) -> None:
    ran = await windlass("migrate", "--to", "mysql://x", "--state", str(tmp_path))
    assert ran.code == 1
    assert "postgresql://USER@HOST/DATABASE" in ran.err


async def test_a_plan_reads_the_shared_store(
    old: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It shows what is recorded there, without a daemon."""
    url = postgres.database()
    assert (await windlass("migrate", "--to", url, "--state", str(old))).code == 0
    monkeypatch.setenv("WINDLASS_DATABASE_URL", url)
    ran = await windlass("plan", "--state", str(tmp_path / "elsewhere"), "--json")
    assert '"key": "Deployment/default/wine"' in ran.out
