"""The roster in PostgreSQL: who is alive, who holds what, and what is due for whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

import asyncpg
import structlog
from pydantic import TypeAdapter

from windlass.clock import Clock
from windlass.priority import Priority
from windlass.store.base import LeaseLostError, StoreError
from windlass.store.pool import Argument, Database
from windlass.store.roster import Colleague, Due, Home, Member, Roster
from windlass_schemas import Key

CHANNEL = "windlass"
_COLLEAGUE = TypeAdapter(Colleague)
RELISTEN = 1.0
"""Seconds until a lost connection for hints is opened anew."""

_log = structlog.get_logger("windlass.store")


def application_of(name: str) -> str:
    """What the server calls the connections of a daemon; it knows so many characters."""
    return f"windlass {name}"[:63]


class Leases(Roster):
    """One daemon's rows."""

    def __init__(self, database: Database, member: Member, clock: Clock | None) -> None:
        self.name = member.name
        self.lease = member.lease
        self.incarnation = 0
        self._db = database
        self._member = member
        self._clock = clock

    def values(self, **values: Argument) -> dict[str, Argument]:
        """With the time, and who we are, which most statements ask for."""
        return {
            "at": self._clock() if self._clock else None,
            "name": self.name,
            "incarnation": self.incarnation,
            "me": self.me,
            **values,
        }

    @property
    def me(self) -> str:
        """This start of this daemon: what leases belong to."""
        return f"{self.name}/{self.incarnation}"

    async def _rows(self, statement: str, **values: Argument) -> Sequence[Mapping[str, object]]:
        return await self._db.rows(statement, **self.values(**values))

    async def join(self) -> None:
        """Take this daemon's name, and whatever a former process of it held. Raises StoreError."""
        me = self._member
        found = await self._rows(
            "register",
            home=me.home,
            host=me.host,
            pid=me.pid,
            version=me.version,
            workers=me.workers,
            lease=me.lease,
        )
        if not found:
            (other,) = await self._rows("daemon")
            raise StoreError(
                f"a daemon named {self.name!r} is at work on {other['host']} (process"
                f" {other['pid']}, {other['home']}); give this one another name: WINDLASS_NAME"
            )
        self.incarnation = _number(found[0], "incarnation")
        await self._rows("evict", application=application_of(self.name))
        await self._rows("free")

    def work_on(self, database: Database) -> None:
        """Say everything further over these connections."""
        self._db = database

    async def beat(self) -> int:
        found = await self._rows("beat", lease=self.lease)
        if not found:
            raise LeaseLostError(f"another daemon named {self.name!r} has started; stop this one")
        # Who is silent may have stopped in the middle of a transaction, with locks that it holds.
        await self._rows("evict_silent")
        return _number(found[0], "held")

    async def take(self, room: int, full: Sequence[str]) -> Sequence[Due]:
        taken = [
            Due(
                Key.parse(_text(row, "key")),
                _text(row, "lane"),
                Priority(_number(row, "priority")),
                _text(row, "before").rpartition("/")[0],
            )
            for row in await self._rows("take", room=room, full=list(full))
        ]
        return sorted(taken, key=lambda due: due.priority)

    async def lease_one(self, key: Key) -> bool:
        """Take one object, due or not; False when another daemon has it, or must have it."""
        return bool(await self._rows("lease", key=str(key)))

    async def next_due(self) -> float | None:
        (row,) = await self._rows("next_due")
        seconds = row["seconds"]
        return None if seconds is None else float(str(seconds))

    async def look(self, keys: Sequence[Key], priority: Priority) -> None:
        await self._rows("look", keys=[str(key) for key in keys], priority=priority)
        await self._rows("notify", what="due")

    async def give_back(self, keys: Sequence[Key]) -> None:
        if keys:
            await self._rows("give_back", keys=[str(key) for key in keys])
            await self._rows("notify", what="due")

    async def hold(self, lease: str) -> bool:
        return bool(await self._rows("hold", lease=lease))

    async def bind(self, target: str, host: str) -> Home:
        (row,) = await self._rows("bind", target=target, host=host)
        daemon = _text(row, "daemon")
        return Home(daemon, daemon == self.name, bool(row["alive"]))

    async def revisits(self, sources: Sequence[str]) -> Mapping[str, int]:
        found = await self._rows("revisits", ids=list(sources))
        return {_text(row, "id"): _number(row, "revisit") for row in found}

    async def colleagues(self) -> Sequence[Colleague]:
        return [_COLLEAGUE.validate_python(row) for row in await self._rows("daemons")]

    @asynccontextmanager
    async def hints(self) -> AsyncIterator[AsyncIterator[str]]:
        heard: asyncio.Queue[str] = asyncio.Queue(maxsize=1000)
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._listen(heard))
            try:
                yield _told(heard)
            finally:
                listening.cancel()

    async def _listen(self, heard: asyncio.Queue[str]) -> None:
        """Hear for ever; a lost connection is opened anew."""
        while True:
            with suppress(StoreError, OSError, TimeoutError, asyncpg.PostgresError):
                await self._listen_once(heard)
            await asyncio.sleep(RELISTEN)

    async def _listen_once(self, heard: asyncio.Queue[str]) -> None:
        """Hear on a connection of its own, until that is lost."""
        lost = asyncio.Event()
        connection = await self._db.listener()
        try:
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(CHANNEL, lambda *said: _put(heard, str(said[3])))
            for what in ("due", "events"):  # who knows what was said meanwhile
                _put(heard, what)
            await lost.wait()
        finally:
            connection.terminate()

    async def leave(self) -> None:
        await self._rows("free")
        await self._rows("free_leases")
        await self._rows("retire")
        await self._rows("notify", what="due")


def _put(heard: asyncio.Queue[str], what: str) -> None:
    with suppress(asyncio.QueueFull):  # who is asleep finds as much when it looks
        heard.put_nowait(what)


async def _told(heard: asyncio.Queue[str]) -> AsyncIterator[str]:
    while True:
        yield await heard.get()


def _text(row: Mapping[str, object], column: str) -> str:
    return str(row[column])


def _number(row: Mapping[str, object], column: str) -> int:
    return int(str(row[column]))
