"""Connections to PostgreSQL: transactions, named statements, migrations, errors in words."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import cache

import asyncpg

from windlass.store.address import Address
from windlass.store.base import AwayError, StoreError
from windlass.store.queries import load_migrations, load_queries, load_script
from windlass.store.recording import TakenError
from windlass.store.rows import Row
from windlass.store.statements import T, Transaction, Value, Work

SCHEMA = "windlass"
CONNECT_TIMEOUT = 10.0
STATEMENT_TIMEOUT = 30.0
"""Seconds."""
CONNECTIONS = 10
"""The most that one daemon opens, besides the one that listens."""
MIGRATING = 87013000
"""The advisory lock under which one daemon at a time migrates."""

Argument = Value | bool | float | datetime | timedelta | Sequence[str]


@cache
def _statements() -> Mapping[str, tuple[str, tuple[str, ...]]]:
    """By name: the text with ``$1`` for the first name in it, and the names."""
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for file in ("queries.sql", "agenda.sql"):
        for name, text in load_queries("postgres", file).items():
            names = tuple(dict.fromkeys(re.findall(r"(?<![:\w]):(\w+)", text)))
            numbers = {each: f"${i}" for i, each in enumerate(names, 1)}
            found[name] = (
                re.sub(r"(?<![:\w]):(\w+)", lambda m, n=numbers: n[m[1]], text),  # type: ignore[misc]
                names,
            )
    return found


class Database:
    """A pool, and what it has been asked."""

    def __init__(self, address: Address, pool: asyncpg.Pool, application: str) -> None:
        self.address = address
        self._pool = pool
        self._application = application
        self.asked = 0
        """How often, each time one transaction or statement."""
        self.on_error: Callable[[], None] = _nothing
        """Called each time that the database could not do its work."""
        self.trouble = ""
        """Why the last statement came to nothing; empty when it came to something."""

    @classmethod
    async def open(
        cls, address: Address, application: str, idle: timedelta, *, migrate: bool = True
    ) -> Database:
        """Connect, and bring the schema up to date, or refuse one that is not.

        A transaction that does nothing for ``idle`` is ended by the server, so that a daemon that
        is stopped in the middle of one holds nobody up. Raises StoreError.
        """
        async with _explained(address):
            pool = await asyncpg.create_pool(
                **_options(address, application, idle), min_size=0, max_size=CONNECTIONS
            )
        database = cls(address, pool, application)
        try:
            async with database.connection() as connection:
                await _migrate(connection, allowed=migrate)
        except BaseException:
            pool.terminate()
            raise
        return database

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """One connection of the pool. Whatever goes wrong on it is a StoreError."""
        self.asked += 1
        try:
            async with (
                _explained(self.address),
                self._pool.acquire(timeout=CONNECT_TIMEOUT) as connection,
            ):
                yield connection
        except StoreError as error:
            if isinstance(error, AwayError):
                self.on_error()
                self.trouble = str(error)
            raise
        else:
            self.trouble = ""

    async def read(self, work: Work[T]) -> T:
        """Run work that is one statement."""
        async with self.connection() as connection:
            return await work(Session(connection))

    async def write(self, work: Work[T]) -> T:
        """Run work in one transaction."""
        async with self.connection() as connection, connection.transaction():
            return await work(Session(connection))

    async def rows(self, statement: str, /, **values: Argument) -> Sequence[Mapping[str, object]]:
        """Run one statement by itself."""
        async with self.connection() as connection:
            return await Session(connection).rows(statement, values)

    async def listener(self) -> asyncpg.Connection:
        """A connection of its own, for hearing what others say. Raises StoreError."""
        async with _explained(self.address):
            return await asyncpg.connect(**_options(self.address, self._application, timedelta(0)))

    async def close(self) -> None:
        """Let work under way finish, then close."""
        try:
            async with _explained(self.address):
                async with asyncio.timeout(STATEMENT_TIMEOUT):
                    await self._pool.close()
        except StoreError:
            self._pool.terminate()

    def terminate(self) -> None:
        """Drop all connections at once, as a killed process does."""
        self._pool.terminate()


def _nothing() -> None:
    """Nobody counts."""


class Session(Transaction):
    """Statements on one connection."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection

    async def rows(
        self, statement: str, values: Mapping[str, Argument]
    ) -> Sequence[Mapping[str, object]]:
        """Run a statement with any values; those that it does not name are left out."""
        return [dict(row) for row in await self._fetch(statement, values)]

    async def _fetch(
        self, statement: str, values: Mapping[str, Argument]
    ) -> Sequence[asyncpg.Record]:
        text, names = _statements()[statement]
        try:
            found: Sequence[asyncpg.Record] = await self._connection.fetch(
                text, *(values[name] for name in names)
            )
        except asyncpg.UniqueViolationError as error:
            raise TakenError(str(error)) from error
        return found

    async def one(self, statement: str, /, **values: Value) -> Row | None:
        found = await self._fetch(statement, values)
        return dict(found[0]) if found else None

    async def all(self, statement: str, /, **values: Value) -> list[Row]:
        return [dict(row) for row in await self._fetch(statement, values)]

    async def many(self, statement: str, rows: Sequence[Mapping[str, Value]], /) -> None:
        if rows:
            text, names = _statements()[statement]
            await self._connection.executemany(
                text, [tuple(row[name] for name in names) for row in rows]
            )


def _options(address: Address, application: str, idle: timedelta) -> dict[str, object]:
    milliseconds = str(int(idle.total_seconds() * 1000))
    return {
        "dsn": address.url,
        "password": lambda: address.password,
        "timeout": CONNECT_TIMEOUT,
        "command_timeout": STATEMENT_TIMEOUT,
        "server_settings": {
            "application_name": application,
            "search_path": SCHEMA,
            "idle_in_transaction_session_timeout": milliseconds,
        },
    }


@asynccontextmanager
async def _explained(address: Address) -> AsyncIterator[None]:
    """Say what the database refused, or that it is away, in words that help."""
    try:
        yield
    except (
        OSError,
        TimeoutError,
        asyncpg.InterfaceError,
        asyncpg.InternalClientError,
        asyncpg.PostgresConnectionError,
        asyncpg.OperatorInterventionError,
        asyncpg.InsufficientResourcesError,
        asyncpg.TransactionRollbackError,
        asyncpg.IdleInTransactionSessionTimeoutError,
    ) as error:
        raise AwayError(
            f"the database {address.url} does not answer ({_words(error)});"
            " start it, or mend the way to it; work goes on by itself then"
        ) from error
    except asyncpg.InvalidAuthorizationSpecificationError as error:
        raise StoreError(
            f"the database {address.url} lets nobody in like that ({_words(error)});"
            " see user, password and sslmode in WINDLASS_DATABASE_URL"
        ) from error
    except asyncpg.PostgresError as error:
        raise StoreError(
            f"the database {address.url} refuses it ({_words(error)});"
            " see docs/postgresql.md for what the daemon's role needs"
        ) from error


def _words(error: BaseException) -> str:
    return (
        f"{type(error).__name__}: {str(error).splitlines()[0]}"
        if str(error)
        else type(error).__name__
    )


async def _migrate(connection: asyncpg.Connection, *, allowed: bool) -> None:
    """Run the migrations that the schema has not seen, forward only, one daemon at a time."""
    migrations = load_migrations("postgres")
    newest = migrations[-1][0]
    version = await _version(connection)
    if version == newest:
        return
    if version < newest and not allowed:
        raise StoreError(
            f"the database has schema {version} and this windlass needs {newest};"
            " start its daemon, or run windlass migrate"
        )
    if version < newest:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", MIGRATING)
            version = await _version(connection)
            await _run_migrations(connection, migrations, version)
    if version > newest:
        raise StoreError(
            f"the database has schema {version} and this windlass knows {newest};"
            " start the newer version that made it"
        )


async def _run_migrations(
    connection: asyncpg.Connection, migrations: Sequence[tuple[int, str]], version: int
) -> None:
    await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_version (version BIGINT PRIMARY KEY)"
    )
    for number, script in migrations:
        if number > version:
            await connection.execute(script)
            await connection.execute("INSERT INTO schema_version VALUES ($1)", number)
    await connection.execute(load_script("postgres", "grants.sql"))


async def _version(connection: asyncpg.Connection) -> int:
    """Of the schema; 0 while there is none.

    The catalogue is asked as a table: what ``to_regclass`` knows can be older than the lock.
    """
    there = "SELECT 1 FROM pg_tables WHERE schemaname = $1 AND tablename = 'schema_version'"
    if await connection.fetchval(there, SCHEMA) is None:
        return 0
    found: int | None = await connection.fetchval("SELECT max(version) FROM schema_version")
    return found or 0
