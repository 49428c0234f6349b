"""What one pass reads of other objects: part of hops 4 and 5.

Each key is read once in a pass, so that all of the pass sees the same state of it, and a fleet on
one Target does not ask the store for that Target four times each.
"""

from __future__ import annotations

from windlass.store.base import Object, Store
from windlass_schemas import Key


class Reading:
    """Reads of one pass. Made at its start and dropped at its end: nothing in it grows old."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._seen: dict[Key, Object | None] = {}

    async def get(self, key: Key) -> Object | None:
        """The object, as it was when this pass first asked for it."""
        if key not in self._seen:
            self._seen[key] = await self._store.get(key)
        return self._seen[key]
