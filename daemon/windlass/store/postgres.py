"""The shared store: PostgreSQL, for several daemons. The books are those of the embedded store."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import timedelta

from windlass.clock import Clock
from windlass.priority import Priority
from windlass.store import rows
from windlass.store.address import Address
from windlass.store.base import Claim, LeaseLostError, Outcome, StoreError
from windlass.store.books import Books
from windlass.store.leases import Leases, application_of
from windlass.store.pool import Argument, Database, Session
from windlass.store.roster import Member, source_lease
from windlass.store.statements import T, Transaction, Work
from windlass_schemas import Key

NEVER = timedelta(days=36500)
JOINING = "windlass joining"


class PostgresStore(Books):
    """State in one database. Build with ``open``; ``roster`` is this daemon's place in it."""

    def __init__(self, database: Database, leases: Leases) -> None:
        self._db = database
        self.roster = self._leases = leases
        self.install = ""
        self.writes = 0
        """Transactions that changed what is known. Leases and times do not count."""

    @classmethod
    async def open(
        cls, address: Address, member: Member, clock: Clock | None = None
    ) -> PostgresStore:
        """Connect, migrate, and join the daemons that share the store.

        ``clock`` is for tests that own the time; else the server's counts, for all daemons alike.
        Raises StoreError.
        """
        idle = member.lease / 3
        # Under a name of its own until it counts as alive: the sessions of the silent are ended.
        entrance = await Database.open(address, JOINING, idle)
        leases = Leases(entrance, member, clock)
        try:
            await entrance.rows("put_meta", key="install", value=uuid.uuid4().hex)
            (found,) = await entrance.rows("get_meta", key="install")
            await leases.join()
            database = await Database.open(address, application_of(member.name), idle)
        finally:
            entrance.terminate()
        leases.work_on(database)
        store = cls(database, leases)
        store.install = str(found["value"])
        return store

    @property
    def trouble(self) -> str:
        """Why the database did not do what it was last asked; empty when it did."""
        return self._db.trouble

    @property
    def database(self) -> Database:
        """The connections."""
        return self._db

    async def claim(self, key: Key) -> Claim | None:
        row = await self._one("claimed", key=str(key), me=self._leases.me)
        if row is None:
            if not await self._leases.lease_one(key):
                return None
            row = await self._one("claimed", key=str(key), me=self._leases.me)
        if row is None:
            return None
        return Claim(rows.object_of(row), rows.number(row, "token"), rows.number(row, "asked"))

    async def close(self) -> None:
        await self._db.close()

    def terminate(self) -> None:
        """Drop everything at once, as a killed process does."""
        self._db.terminate()

    # -- what the books ask for -----------------------------------------------------------------

    async def _read(self, work: Work[T]) -> T:
        return await self._db.read(work)

    async def _write(self, work: Work[T]) -> T:
        result = await self._db.write(work)
        self.writes += 1
        return result

    async def _change(self, work: Work[T], source: str = "", *, quick: bool = False) -> T:
        async def admitted(at: Transaction) -> T:
            await at.one("lock_declared")
            await self._admit(_session(at), source)
            return await work(at)

        return await self._write(admitted)

    async def _admit(self, at: Session, source: str) -> None:
        """Only the newest daemon of this name may, and for a source only who follows it."""
        row = await at.one("admit", name=self._leases.name)
        if row is None or row["incarnation"] != self._leases.incarnation:
            raise LeaseLostError("another daemon has this name now; stop this one")
        if not source:
            return
        held = await at.rows("hold", self._leases.values(lease=source_lease(source)))
        if not held:
            found = await at.one("holder", lease=source_lease(source))
            owner = found["owner"] if found else "another daemon"
            raise LeaseLostError(f"{source} is followed by {owner}; nothing was written")

    async def _wake(self, at: Transaction, keys: Sequence[Key], priority: Priority) -> None:
        session = _session(at)
        if keys:
            await session.rows("begin", self._leases.values())
            said = [str(key) for key in keys]
            await session.rows("wake", self._leases.values(keys=said, priority=priority))
            await at.one("notify", what="due")

    async def _revisit(self, at: Transaction, source: str) -> None:
        await at.one("revisit", id=source)

    async def _prepare(self, at: Transaction, claim: Claim, outcome: Outcome) -> None:
        """Lock in the order of the keys all that is written to, so that passes never cross."""
        session, then = _session(at), outcome.next
        if outcome.finalized:  # a source may be about to declare it again
            await at.one("lock_declared")
        near = self._leases.values(
            key=str(claim.object.key),
            keys=[str(key) for key in then.wake],
            priority=Priority.FOLLOW_UP,
        )
        if then.news or then.wake:
            await session.rows("lock_near", near)
        await self._guard(at, claim)
        if then.news or then.wake:
            await session.rows("wake_near", near)
        if then.freed:
            await at.one("revisit", id=then.freed)
        if outcome.events or then.news or then.wake:
            await at.one("notify", what="events" if outcome.events else "due")
        if not outcome.finalized:
            await session.rows("settle", self._settlement(claim, outcome))

    async def _let_go(self, claim: Claim, outcome: Outcome) -> None:
        if not await self._db.rows("settle", **self._settlement(claim, outcome)):
            raise LeaseLostError(f"another daemon has taken {claim.object.key} over")

    def _settlement(self, claim: Claim, outcome: Outcome) -> dict[str, Argument]:
        then = outcome.next
        after = NEVER if then.after is None else timedelta(seconds=then.after)
        return self._leases.values(
            uid=claim.object.uid,
            token=claim.token,
            asked=claim.asked,
            home=then.home,
            after=after,
            priority=then.priority,
        )


def _session(at: Transaction) -> Session:
    if not isinstance(at, Session):
        raise StoreError("a transaction of another database")
    return at
