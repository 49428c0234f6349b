"""A SQLite file: one connection that does one thing at a time, in the order in which it is asked.

WAL with synchronous=FULL: what has returned survives a power cut. A cancelled caller leaves its
transaction whole: done, or not begun.

- A write is a few statements on the caller's thread, which take less time than handing them to
  another one does. Only the commit, the disk's word that it has them, is waited for in a thread.
  What is written while the disk is busy is committed together, each write in a savepoint.
- A write that a power cut may undo is not waited for: it is done on return, when nothing else is
  under way. The next commit takes it to the disk, or whoever waits for ``durable``.
- Work that may take long runs as a whole in that thread.
- A few rows by their key are read at once, over a second connection: WAL keeps readers and writers
  apart.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

from windlass.store.base import StoreError
from windlass.store.queries import load_migrations, load_queries

P = ParamSpec("P")
T = TypeVar("T")
Value = str | int | None


TOGETHER = 32
"""Writes in one commit, at most."""
FEW = 8
"""Writes in one commit that no clock is asked for."""
NOTES = 64
"""Writes in a row that are not waited for; the next one brings them into the file."""
TURNS = 2
"""Turns of the event loop after which the disk is asked for notes: what they let begin goes first.

A thread that is woken takes the interpreter from it at each statement.
"""
CHECKPOINT = 1000
"""Pages of the log after which a commit brings them into the file; SQLite's own number."""


class Database:
    """The connection, its thread, and the named statements."""

    def __init__(
        self,
        file: Path,
        connection: sqlite3.Connection,
        reader: sqlite3.Connection,
        thread: Executor,
    ) -> None:
        self.connection = connection
        self._file = file
        self._reader = reader
        self._thread = thread
        self._sql = load_queries("sqlite")
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Work[Any]] = deque()
        self._busy = False
        """Whether the thread has the connection."""
        self._disk = 0.0
        """Seconds that the last commit took."""
        self._noted = 0
        """How many writes were not waited for, ever."""
        self._in_a_row = 0
        """How many of them came after the last commit that was."""
        self._safe = 0
        """How many of them the disk is known to have."""
        self._syncing: asyncio.Future[None] | None = None
        self._doubtful = False
        """Whether the disk has refused the log: what it says of it afterwards proves nothing."""

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
            reader = await loop.run_in_executor(thread, _connect, file, "query_only = ON")
        except (sqlite3.Error, OSError) as error:
            thread.shutdown(wait=False)
            raise StoreError(
                f"the database {file} cannot be used ({error}); make room and make it writable,"
                " or move it away to start anew"
            ) from error
        except StoreError:
            thread.shutdown(wait=False)
            raise
        return cls(file, connection, reader, thread)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one piece of blocking work in the thread. Raises StoreError for a failed write."""
        return await self._ask(partial(work, *args, **kwargs), quick=False)

    async def write(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one short transaction, in one commit with those that wait now. Raises StoreError.

        ``work`` uses ``transaction``. Whether it succeeds has nothing to do with the others; that
        the disk takes the commit has.
        """
        return await self._ask(partial(work, *args, **kwargs), quick=True)

    async def note(self, work: Callable[[], T]) -> T:
        """Run one short transaction that need only outlive this process. Raises StoreError."""
        if self._busy or self._waiting or self._in_a_row >= NOTES:
            return await self.write(work)
        try:
            with self._not_waiting_for_the_disk():
                result = work()
        except sqlite3.OperationalError as error:
            raise _refusal(error) from error
        self._noted += 1
        self._in_a_row += 1
        return result

    async def durable(self) -> None:
        """Return when no power cut can undo what ``note`` has done so far. Raises StoreError."""
        noted = self._noted
        for _ in range(TURNS):
            if self._safe < noted:
                await asyncio.sleep(0)
        while self._safe < noted:
            self._syncing = self._syncing or self._sync_soon()
            try:
                await asyncio.shield(self._syncing)
            except (OSError, sqlite3.Error) as error:
                raise _refusal(error) from error

    def _sync_soon(self) -> asyncio.Future[None]:
        """Have the thread take to the disk what is in the log now, for all who wait for it."""
        noted, answer = self._noted, self._loop.create_future()

        def tell(done: Future[None]) -> None:
            self._syncing = None
            error = done.exception()
            if error is None:
                self._safe = max(self._safe, noted)
                answer.set_result(None)
            else:
                answer.set_exception(error)
                answer.exception()  # seen, also when nobody waits for it any more

        self._thread.submit(self._sync).add_done_callback(
            lambda done: self._loop.call_soon_threadsafe(tell, done)
        )
        return answer

    def _sync(self) -> None:
        """In the thread. A disk that has refused once is given everything anew, in another file."""
        if self._doubtful:
            self._bring_over()
            self._doubtful = False
            return
        descriptor = os.open(f"{self._file}-wal", os.O_RDONLY)
        try:
            os.fdatasync(descriptor)
        except OSError:
            self._doubtful = True
            raise
        finally:
            os.close(descriptor)

    def _bring_over(self) -> None:
        with closing(_connect(self._file)) as connection:
            held_up = connection.execute("PRAGMA wal_checkpoint(FULL)").fetchone()[0]
        if held_up:
            raise sqlite3.OperationalError("the log could not be brought into the file")

    @contextmanager
    def _not_waiting_for_the_disk(self) -> Iterator[None]:
        """Commits leave the file to the kernel, and checkpoints to commits that wait anyway."""
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.execute("PRAGMA wal_autocheckpoint = 0")
        try:
            yield
        finally:
            self.connection.execute("PRAGMA synchronous = FULL")
            self.connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT}")

    async def _ask(self, work: Callable[[], T], *, quick: bool) -> T:
        answer: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append(_Work(quick, work, answer))
        self._go_on()
        try:
            return await answer
        except sqlite3.OperationalError as error:
            raise _refusal(error) from error

    def _go_on(self) -> None:
        """Begin what waits longest, unless something is under way."""
        while self._waiting and not self._busy:
            if self._waiting[0].quick:
                self._write_waiting()
            else:
                work = self._waiting.popleft()
                self._leave_to_thread([work], work.do)

    def _write_waiting(self) -> None:
        """Take writes that wait, and have them committed as one.

        As many as are made in the time that the disk takes for a commit: more would let the first
        wait for all of a crowd, which then goes on as one crowd; fewer would leave the disk idle.
        """
        taken: list[_Work[Any]] = []
        begun = time.perf_counter()
        changes = self.connection.total_changes
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            while self._waiting and self._waiting[0].quick and len(taken) < TOGETHER:
                if len(taken) >= FEW and time.perf_counter() - begun > self._disk:
                    break
                taken.append(self._waiting.popleft())
                taken[-1].do()
                if not self.connection.in_transaction:
                    raise sqlite3.OperationalError("the disk is full or failed")  # noqa: TRY301
        except BaseException as error:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
            for work in taken or [self._waiting.popleft()]:
                work.fail(error)
        else:
            wrote = self.connection.total_changes > changes  # or the disk is not asked
            self._leave_to_thread(taken, self._commit, self._noted if wrote else 0)

    def _commit(self) -> None:
        """In the thread. Nobody hears of a success before the disk has it."""
        begun = time.perf_counter()
        try:
            self.connection.execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:  # a full disk has rolled back already
                self.connection.execute("ROLLBACK")
            raise
        self._disk = time.perf_counter() - begun
        self._in_a_row = 0

    def _leave_to_thread(
        self, works: Sequence[_Work[Any]], do: Callable[[], None], safe: int = 0
    ) -> None:
        """Let the thread have the connection; then tell those who wait for it, and go on.

        ``safe`` is how many notes the disk has, if it goes well: the log is one file.
        """
        self._busy = True

        def tell(done: Future[None]) -> None:
            self._busy = False
            if done.exception() is None and not self._doubtful:
                self._safe = max(self._safe, safe)
            for work in works:
                work.tell(done.exception())
            self._go_on()

        self._thread.submit(do).add_done_callback(
            lambda done: self._loop.call_soon_threadsafe(tell, done)
        )

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

    def look(self, statement: str, /, **values: Value) -> list[sqlite3.Row]:
        """Ask one statement at once, which is as of one moment: for a few rows by their key.

        Raises StoreError.
        """
        try:
            return self._reader.execute(self._sql[statement], values).fetchall()
        except sqlite3.OperationalError as error:
            raise StoreError(f"the database cannot be read ({error}); look at its disk") from error

    async def close(self) -> None:
        """Close the file and end the thread. Closing again does nothing."""
        if not self._closed:
            self._closed = True
            self._reader.close()
            await self.run(self.connection.close)
            self._thread.shutdown(wait=False)


class _Work(Generic[T]):
    """Something that waits for its turn, and whoever waits for what comes of it."""

    def __init__(self, quick: bool, work: Callable[[], T], answer: asyncio.Future[T]) -> None:
        self.quick = quick
        """Whether it is a short write."""
        self._work = work
        self._answer = answer
        self._error: BaseException | None = None

    def do(self) -> None:
        """Do it, and keep what came of it."""
        try:
            self._result = self._work()
        except BaseException as error:  # given to whoever waits for it
            self._error = error

    def fail(self, error: BaseException) -> None:
        """It came to nothing, whatever it did."""
        if not self._answer.done():  # nobody waits any more
            self._answer.set_exception(error)

    def tell(self, error: BaseException | None) -> None:
        """Say what came of it; with ``error``, that it came to nothing."""
        error = error or self._error
        if error is not None:
            self.fail(error)
        elif not self._answer.done():
            self._answer.set_result(self._result)


def _refusal(error: sqlite3.Error | OSError) -> StoreError:
    return StoreError(f"the database did not take the write ({error}); make room on the disk")


_WRITES = ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON")


def _connect(file: Path, *pragmas: str) -> sqlite3.Connection:
    file.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(file, isolation_level=None, timeout=5, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    for pragma in pragmas or _WRITES:
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    """Run the migrations that the file has not seen, forward only, each in a transaction."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    migrations = load_migrations("sqlite")
    newest = migrations[-1][0]
    if version > newest:
        raise StoreError(
            f"the database has schema {version} and this windlass knows {newest};"
            " start the newer version that made it"
        )
    for number, script in migrations:
        if number > version:
            connection.executescript(f"BEGIN;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")
