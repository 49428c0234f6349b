"""``windlass migrate``: from the embedded store to one that daemons share."""

from __future__ import annotations

import asyncio
from pathlib import Path

from windlass.app import LOCK
from windlass.cli.failure import Failure, split_hint
from windlass.cli.settings import settings_from
from windlass.cli.terminal import Table, note
from windlass.store.address import Address
from windlass.store.base import StoreError
from windlass.store.lock import FolderLock
from windlass.store.moving import move
from windlass.store.sqlite import DATABASE


def migrate(to: str, state: Path | None) -> None:
    """Move everything, check it, and say what was moved. Raises Failure."""
    settings = settings_from(state=state)
    folder = settings.state.absolute()
    try:
        address = Address.parse(to, settings.database_password.get_secret_value())
        with FolderLock(folder / LOCK):
            tables = asyncio.run(move(folder / DATABASE, address, settings.name))
    except StoreError as error:
        raise Failure(*split_hint(str(error))) from error
    if not tables:
        note(f"{folder} has no store: nothing was moved. {address.url} has its schema")
        return
    rows = [(table.name, str(len(table.rows)), f"sha256:{table.digest[:16]}") for table in tables]
    Table(("TABLE", "ROWS", "DIGEST"), rows).show()
    note(f"moved to {address.url}; {folder / DATABASE} is as it was")
