"""The embedded store: one SQLite file, one process. Each port method is one transaction."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Self, cast

from windlass.store import rows
from windlass.store.base import Claim, LeaseLostError, Object
from windlass.store.books import Books
from windlass.store.database import Database
from windlass.store.recording import TakenError
from windlass.store.rows import Row, number
from windlass.store.statements import T, Transaction, Value, Work, at_once
from windlass_schemas import CloudEvent, Key

DATABASE = "windlass.db"
"""The file's name in the state folder."""


class SqliteStore(Books):
    """State in one file. Build with ``open``; the caller holds the folder's lock."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._at = _Thread(database)
        self.install = ""
        self._token = 0

    @classmethod
    async def open(cls, file: Path, thread: Executor | None = None) -> Self:
        """Open or make the file. Arguments and StoreError are as for ``Database.open``."""
        store = cls(await Database.open(file, thread))
        try:
            await store._db.run(store._start)
        except BaseException:
            await store.close()
            raise
        return store

    def _start(self) -> None:
        with self._db.transaction():
            found = self._db.one("get_meta", key="install")
            self.install = found["value"] if found else uuid.uuid4().hex
            if not found:
                self._db.one("put_meta", key="install", value=self.install)
            row = self._db.one("raise_session_token")
            assert row is not None
            self._token = row["token"]

    @property
    def writes(self) -> int:
        """How many rows were written since the file was opened."""
        return self._db.connection.total_changes

    async def get(self, key: Key) -> Object | None:
        found = self._db.look("object_by_key", key=str(key))
        return rows.object_of(found[0]) if found else None

    async def dependents(self, key: Key) -> Sequence[Key]:
        found = self._db.look("dependents", key=str(key))
        return [Key.parse(row["from_key"]) for row in found]

    async def claim(self, key: Key) -> Claim | None:
        found = await self.get(key)
        return None if found is None else Claim(found, self._token)

    async def close(self) -> None:
        await self._db.close()

    async def _read(self, work: Work[T]) -> T:
        return await self._db.run(lambda: at_once(_running(work, self._at)))

    async def _write(self, work: Work[T]) -> T:
        return await self._db.write(lambda: self._whole(work))

    async def _note(self, work: Work[T]) -> T:
        return await self._db.note(lambda: self._whole(work))

    async def _change(self, work: Work[T], source: str = "", *, quick: bool = False) -> T:
        async def admitted(at: Transaction) -> T:
            await self._check_session(at)
            return await work(at)

        return await (self._db.note if quick else self._db.run)(lambda: self._whole(admitted))

    async def durable(self) -> None:
        await self._db.durable()

    async def unpublished(self, limit: int) -> Sequence[tuple[int, CloudEvent]]:
        found = await super().unpublished(limit)
        await self._db.durable()  # what others have heard cannot be undone
        return found

    def _whole(self, work: Work[T]) -> T:
        with self._db.transaction():
            return at_once(_running(work, self._at))

    async def _check_session(self, at: Transaction) -> None:
        row = await at.one("session_token")
        if row is None or number(row, "token") != self._token:
            raise LeaseLostError("another daemon has opened this database since; stop this one")


class _Thread(Transaction):
    """Statements in the file's own thread, inside the transaction that is open there."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def one(self, statement: str, /, **values: Value) -> Row | None:
        try:
            return self._db.one(statement, **values)
        except sqlite3.IntegrityError as error:
            raise TakenError(str(error)) from error

    async def all(self, statement: str, /, **values: Value) -> list[Row]:
        return [*self._db.all(statement, **values)]

    async def many(self, statement: str, rows: Sequence[Mapping[str, Value]], /) -> None:
        for values in rows:
            self._db.one(statement, **values)


def _running(work: Work[T], at: Transaction) -> Coroutine[None, None, T]:
    """Every work is the coroutine of an ``async def``."""
    return cast("Coroutine[None, None, T]", work(at))
