"""Move everything from the embedded store to a shared one, and look at a shared one from a copy.

The names of tables and columns are the same in both, so what is moved is rows. Nothing is changed
where they come from.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import asyncpg

from windlass.store.address import Address
from windlass.store.base import StoreError
from windlass.store.declaring import lane_of
from windlass.store.pool import Database, Session
from windlass.store.queries import load_migrations
from windlass_schemas import BUILT_IN_TARGET, parse_resource

Values = tuple[str | int | None, ...]
FIRST = ("meta", "source", "desired")
"""What others refer to."""
NOT_MOVED = ("session",)
"""Who has the file open is no news elsewhere."""
IDLE = timedelta(minutes=10)


@dataclass(frozen=True)
class Table:
    """The rows of one table, in an order that does not depend on the database."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[Values, ...]

    @property
    def digest(self) -> str:
        """Of every value of every row."""
        text = json.dumps(self.rows, ensure_ascii=False).encode()
        return hashlib.sha256(text).hexdigest()


def read_file(file: Path) -> tuple[Table, ...]:
    """All tables of an embedded store, of which nothing is changed; none without a file.

    Raises StoreError.
    """
    if not file.exists():
        return ()
    newest = load_migrations("sqlite")[-1][0]
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as source:
            (version,) = source.execute("PRAGMA user_version").fetchone()
            if version != newest:
                raise StoreError(
                    f"{file} has schema {version} and this windlass moves {newest};"
                    " start and stop this version on it once"
                )
            source.execute("BEGIN")
            names = source.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            ).fetchall()
            wanted = [name for (name,) in names if name not in NOT_MOVED]
            return tuple(_read_table(source, name) for name in _ordered(wanted))
    except sqlite3.Error as error:
        raise StoreError(
            f"{file} cannot be read ({error}); see whether the path is right"
        ) from error


def _ordered(names: Sequence[str]) -> list[str]:
    return sorted(names, key=lambda name: (FIRST.index(name) if name in FIRST else 9, name))


def _read_table(source: sqlite3.Connection, name: str) -> Table:
    columns = tuple(row[1] for row in source.execute(f"PRAGMA table_info({name})"))
    return _table(name, columns, source.execute(f"SELECT {', '.join(columns)} FROM {name}"))


def _table(name: str, columns: tuple[str, ...], rows: object) -> Table:
    found: list[Values] = [tuple(row) for row in rows]  # type: ignore[attr-defined]  # two drivers
    found.sort(key=lambda row: [("" if v is None else str(v)) for v in row])
    return Table(name, columns, tuple(found))


async def move(file: Path, to: Address, daemon: str) -> tuple[Table, ...]:
    """Move a store into an empty database; what was moved. Raises StoreError.

    ``daemon`` is the one on this host: what its local Targets hold stays with it. Without a file
    there is nothing to move, and only the schema is made.
    """
    tables = await asyncio.to_thread(read_file, file)
    database = await Database.open(to, "windlass migrate", IDLE)
    try:
        async with database.connection() as connection, connection.transaction():
            await _check_empty(connection, to)
            for table in tables:
                await _write(connection, table)
            await _begin(Session(connection), tables, daemon)
            for table in tables:
                await _check(connection, table)
    finally:
        await database.close()
    return tables


async def _check_empty(connection: asyncpg.Connection, to: Address) -> None:
    for name in ("desired", "history", "source", "outbox"):
        if await connection.fetchval(f"SELECT EXISTS (SELECT 1 FROM {name})"):
            raise StoreError(
                f"the database {to.url} holds something already (table {name});"
                " move into an empty one"
            )
    await connection.execute("DELETE FROM meta")


async def _write(connection: asyncpg.Connection, table: Table) -> None:
    """Copy the rows, and let numbers go on behind the last one."""
    columns, rows = list(table.columns), list(table.rows)
    if table.name == "desired":
        resource = columns.index("resource")
        columns.append("lane")
        rows = [(*row, lane_of(parse_resource(json.loads(str(row[resource]))))) for row in rows]
    await connection.copy_records_to_table(table.name, records=rows, columns=columns)
    if "position" in table.columns:
        sequence = await connection.fetchval(
            "SELECT pg_get_serial_sequence($1, 'position')", table.name
        )
        if sequence is not None and rows:
            last = max(int(str(row[columns.index("position")])) for row in rows)
            await connection.execute("SELECT setval($1, $2)", sequence, last)


async def _begin(session: Session, tables: Sequence[Table], daemon: str) -> None:
    """Everything is due, and what local Targets hold has this host for its home."""
    await session.rows("begin", {"at": None})
    for target in _local_targets(tables):
        await session.rows("bind", {"at": None, "name": daemon, "target": target, "host": daemon})


def _local_targets(tables: Sequence[Table]) -> set[str]:
    """Targets whose resources were on the host of the only daemon that there was."""
    found: set[str] = set()
    for table in tables:
        for row in table.rows:
            said: Mapping[str, object] = dict(zip(table.columns, row, strict=True))
            if table.name == "desired" and said["kind"] == "Target":
                document = json.loads(str(said["resource"]))
                if document["spec"]["adapter"] == BUILT_IN_TARGET:
                    found.add(f"{said['namespace']}/{said['name']}")
            if table.name == "external" and str(said["target"]) == f"default/{BUILT_IN_TARGET}":
                found.add(str(said["target"]))
    return found


async def _check(connection: asyncpg.Connection, table: Table) -> None:
    """Read it back. Raises StoreError, which undoes the move."""
    columns = ", ".join(table.columns)
    rows = await connection.fetch(f"SELECT {columns} FROM {table.name}")
    found = _table(table.name, table.columns, rows)
    if found.digest != table.digest:
        raise StoreError(
            f"table {table.name} arrived otherwise than it was sent ({len(found.rows)} rows of"
            f" {len(table.rows)}); nothing was moved"
        )


async def copy_to_file(address: Address, file: Path) -> None:
    """A copy of a shared store as an embedded one, for looking only. Raises StoreError.

    The file has its schema already.
    """
    database = await Database.open(address, "windlass plan", IDLE, migrate=False)
    try:
        with closing(sqlite3.connect(file)) as copy:
            names = [table.name for table in read_file(file)]
            async with (
                database.connection() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                copy.execute("DELETE FROM meta")
                for name in names:
                    columns = tuple(row[1] for row in copy.execute(f"PRAGMA table_info({name})"))
                    said = ", ".join(columns)
                    rows = await connection.fetch(f"SELECT {said} FROM {name}")
                    marks = ", ".join("?" * len(columns))
                    copy.executemany(
                        f"INSERT INTO {name} ({said}) VALUES ({marks})",
                        [tuple(row) for row in rows],
                    )
            copy.commit()
    finally:
        await database.close()
