"""The embedded store, with an await at every word: hops 4, 7 and 8 as on a store far away.

A few rows are read at once by the embedded store, without an await. A kernel must not lean on that:
another store has an await there, and another process may write in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windlass.store.base import Claim, Entry, ExternalRecord, Object, Outcome
from windlass.store.sqlite import SqliteStore
from windlass_schemas import Key


@dataclass(frozen=True)
class Said:
    """One word to the store, as far as it matters who else speaks at that time."""

    reads: Key | None = None
    """Whose state it reads; what it reads beside that, no pass ever writes."""
    writes: Key | None = None


class SteppedStore(SqliteStore):
    """Every read is a step too, at which a test may kill the reader or let another one write."""

    last: Said = Said()
    """The last word of a pass."""

    async def get(self, key: Key) -> Object | None:
        self.last = Said(reads=key)
        found = await super().get(key)
        await self._db.run(_nothing)
        return found

    async def dependents(self, key: Key) -> Sequence[Key]:
        self.last = Said()
        found = await super().dependents(key)
        await self._db.run(_nothing)
        return found

    async def intend(
        self,
        claim: Claim,
        record: ExternalRecord,
        entry: Entry | None,
        *,
        through_power_cut: bool = True,
    ) -> None:
        self.last = Said(writes=claim.object.key)
        await super().intend(claim, record, entry, through_power_cut=through_power_cut)

    async def commit(self, claim: Claim, outcome: Outcome) -> None:
        self.last = Said(writes=claim.object.key)
        await super().commit(claim, outcome)


def _nothing() -> None:
    return None
