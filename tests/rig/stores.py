"""The two stores, each opened on a state of its own: what holds for one holds for the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from rig.postgres import Postgres, member
from windlass.store.address import Address
from windlass.store.postgres import PostgresStore
from windlass.store.sqlite import SqliteStore

Opener = Callable[[], Awaitable[SqliteStore | PostgresStore]]


@pytest.fixture(params=["sqlite", "postgres"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the same state anew each time, as a restarted daemon does."""
    if request.param == "sqlite":
        return lambda: SqliteStore.open(tmp_path / "windlass.db")
    server: Postgres = request.getfixturevalue("postgres")
    address = Address.parse(server.database())
    return lambda: PostgresStore.open(address, member())
