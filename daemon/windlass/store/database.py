"""A SQLite file with one thread of its own, in which whole transactions run.

WAL with synchronous=FULL: what has returned survives a power cut. A cancelled caller leaves its
transaction whole: done, or not begun. Writes that wait at the same time are committed together,
each in a savepoint: they share the one slow thing, the disk's word that it has them.

A few rows by their key are read on the caller's own thread, over a second connection: finding them
takes a tenth of the time that handing the question to another thread takes, and writers, whom WAL
keeps apart from readers, are not waited for.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from windlass.store.base import StoreError
from windlass.store.queries import load_migrations, load_queries

P = ParamSpec("P")
T = TypeVar("T")
Value = str | int | None


class Look(Protocol):
    """Asks one of the named statements."""

    def __call__(self, statement: str, /, **values: Value) -> list[sqlite3.Row]: ...


class Database:
    """The connection, its thread, and the named statements."""

    def __init__(
        self, connection: sqlite3.Connection, reader: sqlite3.Connection, thread: Executor
    ) -> None:
        self.connection = connection
        self._reader = reader
        self._thread = thread
        self._sql = load_queries("queries.sql")
        self._closed = False
        self._waiting: list[_Write] = []
        self._guard = threading.Lock()

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
            await loop.run_in_executor(thread, _migrate, connection)
            reader = await loop.run_in_executor(thread, _connect, file)
            await loop.run_in_executor(thread, reader.execute, "PRAGMA query_only = ON")
        except (sqlite3.Error, OSError) as error:
            thread.shutdown(wait=False)
            raise StoreError(
                f"the database {file} cannot be used ({error}); make room and make it writable,"
                " or move it away to start anew"
            ) from error
        except StoreError:
            thread.shutdown(wait=False)
            raise
        return cls(connection, reader, thread)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one piece of blocking work in the thread. Raises StoreError for a failed write."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, lambda: work(*args, **kwargs))
        except sqlite3.OperationalError as error:
            raise _refusal(error) from error

    async def write(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one transaction, in one commit with those that wait now. Raises StoreError.

        ``work`` uses ``transaction``. Whether it succeeds has nothing to do with the others; that
        the disk takes the commit has.
        """
        future: Future[T] = Future()

        def attempt() -> Callable[[], None]:
            try:
                result = work(*args, **kwargs)
            except BaseException as error:  # given to whoever waits for it
                return partial(future.set_exception, error)
            return partial(future.set_result, result)

        with self._guard:
            self._waiting.append(_Write(attempt, future.set_exception))
            first = len(self._waiting) == 1
        if first:
            self._thread.submit(self._write_waiting)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except sqlite3.OperationalError as error:
            raise _refusal(error) from error

    def _write_waiting(self) -> None:
        """One commit for all that wait. Nobody hears of a success before the disk has it."""
        with self._guard:
            waiting, self._waiting = self._waiting, []
        answers: list[Callable[[], None]] = []
        try:
            with self.transaction():
                for write in waiting:
                    answers.append(write.attempt())
                    if not self.connection.in_transaction:
                        raise sqlite3.OperationalError("the disk is full or failed")  # noqa: TRY301
        except BaseException as error:
            answers = [partial(write.fail, error) for write in waiting]
        for answer in answers:
            answer()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; inside another transaction, a part of it that is all or nothing."""
        inner = self.connection.in_transaction
        self.connection.execute("SAVEPOINT part" if inner else "BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("RELEASE part" if inner else "COMMIT")
        except BaseException:
            if self.connection.in_transaction:  # a full disk has rolled back already
                self.connection.execute("ROLLBACK TO part" if inner else "ROLLBACK")
            raise

    def all(self, statement: str, /, **values: Value) -> list[sqlite3.Row]:
        return self.connection.execute(self._sql[statement], values).fetchall()

    def one(self, statement: str, /, **values: Value) -> sqlite3.Row | None:
        found: sqlite3.Row | None = self.connection.execute(self._sql[statement], values).fetchone()
        return found

    @contextmanager
    def look(self) -> Iterator[Look]:
        """Read as of one moment, at once: for a few rows by their key. Raises StoreError."""
        try:
            self._reader.execute("BEGIN")
            try:
                yield self._look
            finally:
                self._reader.execute("ROLLBACK")
        except sqlite3.OperationalError as error:
            raise StoreError(f"the database cannot be read ({error}); look at its disk") from error

    def _look(self, statement: str, /, **values: Value) -> list[sqlite3.Row]:
        return self._reader.execute(self._sql[statement], values).fetchall()

    async def close(self) -> None:
        """Close the file and end the thread. Closing again does nothing."""
        if not self._closed:
            self._closed = True
            self._reader.close()
            await self.run(self.connection.close)
            self._thread.shutdown(wait=False)


@dataclass(frozen=True)
class _Write:
    """A transaction that waits for its turn."""

    attempt: Callable[[], Callable[[], None]]
    """Do it inside the open transaction; the answer for whoever waits, to give after the commit."""
    fail: Callable[[BaseException], None]


def _refusal(error: sqlite3.Error) -> StoreError:
    return StoreError(f"the database did not take the write ({error}); make room on the disk")


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
