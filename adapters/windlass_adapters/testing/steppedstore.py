"""The embedded store, with an await at every word: hops 4, 7 and 8 as on a store far away.

A few rows are read at once by the embedded store, without an await. A kernel must not lean on that:
another store has an await there, and another process may write in between.
"""

from __future__ import annotations

from collections.abc import Sequence

from windlass.store.base import Object
from windlass.store.sqlite import SqliteStore
from windlass_schemas import Key


class SteppedStore(SqliteStore):
    """Every read is a step too, at which a test may kill the reader or let another one write."""

    async def get(self, key: Key) -> Object | None:
        await self._db.run(_nothing)
        return await super().get(key)

    async def dependents(self, key: Key) -> Sequence[Key]:
        await self._db.run(_nothing)
        return await super().dependents(key)


def _nothing() -> None:
    return None
