"""Which store the settings mean: the embedded one, or one that daemons share (hops 2, 4, 7, 8)."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from windlass.settings import Settings
from windlass.store.address import Address
from windlass.store.base import StoreError
from windlass.store.roster import Member
from windlass.store.sqlite import DATABASE, SqliteStore

if TYPE_CHECKING:
    from windlass.store.postgres import PostgresStore

HOME = "home"
"""In the state folder: its id, by which a restarted daemon is known."""


async def open_store(
    settings: Settings, on_error: Callable[[], None]
) -> SqliteStore | PostgresStore:
    """The store; the caller holds the state folder's lock. Raises StoreError.

    ``on_error`` is called each time that a shared store does not answer.
    """
    address = address_of(settings)
    if address is None:
        return await SqliteStore.open(settings.state / DATABASE)
    from windlass.store.postgres import PostgresStore  # loaded by those who have a server

    store = await PostgresStore.open(address, _member(settings))
    store.database.on_error = on_error
    return store


def address_of(settings: Settings) -> Address | None:
    """Where the shared store is; None for the embedded one. Raises StoreError."""
    url = settings.database_url.get_secret_value()
    if not url:
        return None
    return Address.parse(url, settings.database_password.get_secret_value())


def _member(settings: Settings) -> Member:
    return Member(
        name=settings.name,
        home=_home(settings.state / HOME),
        host=socket.gethostname(),
        pid=os.getpid(),
        version=version("windlass"),
        workers=settings.workers,
        lease=timedelta(seconds=settings.lease),
    )


def _home(file: Path) -> str:
    try:
        if not file.exists():
            file.write_text(uuid.uuid4().hex)
        return file.read_text()
    except OSError as error:
        raise StoreError(f"{file} cannot be read ({error.strerror}); make it readable") from error
