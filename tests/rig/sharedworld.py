"""The kit's World on PostgreSQL: the same kernel and stories, another store.

A daemon that is killed leaves its connections broken; one that is stopped in the middle of a
transaction loses it to the server, which waits for nobody.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from rig.chaos import ChaosWorld
from rig.postgres import Postgres, member
from windlass.store.address import Address
from windlass.store.postgres import PostgresStore
from windlass_adapters.testing.world import KitStore, World

STALLED = 1.5
"""A daemon's lease: the server waits for a third of it in the middle of a transaction."""


class SharedWorld(World):
    """Its store is a database of the server; the same folder means the same database."""

    server: ClassVar[Postgres]
    _addresses: ClassVar[dict[Path, Address]] = {}

    async def _open_store(self) -> KitStore:
        if self.folder not in self._addresses:
            self._addresses[self.folder] = Address.parse(self.server.database("kit"))
        return await PostgresStore.open(
            self._addresses[self.folder], member(lease=STALLED), lambda: self.now
        )

    async def abandon(self) -> None:
        assert isinstance(self.store, PostgresStore)
        self.store.terminate()

    def touches(self) -> int:
        assert isinstance(self.store, PostgresStore)
        return self.store.database.asked + self.backend.calls.total()


class SharedChaosWorld(SharedWorld, ChaosWorld):
    """Perturbed, and on PostgreSQL."""


@contextmanager
def shared_worlds(server: Postgres) -> Iterator[None]:
    """Let the worlds be on this server."""
    SharedWorld.server = server
    try:
        yield
    finally:
        del SharedWorld.server
        SharedWorld._addresses.clear()
