"""A SQLite file with one thread of its own, in which whole transactions run.

WAL with synchronous=FULL: what has returned survives a power cut. A cancelled caller leaves its
transaction whole: done, or not begun.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

from windlass.store.base import StoreError
from windlass.store.queries import load_migrations, load_queries

P = ParamSpec("P")
T = TypeVar("T")
Value = str | int | None


class Database:
    """The connection, its thread, and the named statements."""

    def __init__(self, connection: sqlite3.Connection, thread: Executor) -> None:
        self.connection = connection
        self._thread = thread
        self._sql = load_queries("queries.sql")
        self._closed = False

    @classmethod
    async def open(cls, file: Path, thread: Executor | None = None) -> Database:
        """Open or make the file, and bring its schema up to date.

        ``thread`` runs the work, one piece at a time; without it, a thread of its own does.
        Raises StoreError for a file that cannot be written, is damaged, or is of a newer version.
        """
        thread = thread or ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        loop = asyncio.get_running_loop()
        try:
            connection = await loop.run_in_executor(thread, _connect, file)
            database = cls(connection, thread)
            await database.run(_migrate, connection)
        except (sqlite3.Error, OSError) as error:
            thread.shutdown(wait=False)
            raise StoreError(
                f"the database {file} cannot be used ({error}); make room and make it writable,"
                " or move it away to start anew"
            ) from error
        except StoreError:
            thread.shutdown(wait=False)
            raise
        return database

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one piece of blocking work in the thread. Raises StoreError for a failed write."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, lambda: work(*args, **kwargs))
        except sqlite3.OperationalError as error:
            raise StoreError(
                f"the database did not take the write ({error}); make room on the disk"
            ) from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self.connection.in_transaction:  # a full disk has rolled back already
                self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")

    def all(self, statement: str, /, **values: Value) -> list[sqlite3.Row]:
        return self.connection.execute(self._sql[statement], values).fetchall()

    def one(self, statement: str, /, **values: Value) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self.connection.execute(self._sql[statement], values).fetchone()
        return found

    async def close(self) -> None:
        """Close the file and end the thread. Closing again does nothing."""
        if not self._closed:
            self._closed = True
            await self.run(self.connection.close)
            self._thread.shutdown(wait=False)


def _connect(file: Path) -> sqlite3.Connection:
    file.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(file, isolation_level=None, timeout=5, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    """Run the migrations that the file has not seen, forward only, each in a transaction."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    migrations = load_migrations()
    newest = migrations[-1][0]
    if version > newest:
        raise StoreError(
            f"the database has schema {version} and this windlass knows {newest};"
            " start the newer version that made it"
        )
    for number, script in migrations:
        if number > version:
            connection.executescript(f"BEGIN;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
