"""Write what people ask for, inside one transaction of any database."""

from __future__ import annotations

from datetime import UTC, datetime

from windlass.store import rows
from windlass.store.base import (
    Approve,
    Delete,
    Entry,
    Request,
    ResumeObject,
    StoreError,
    SuspendObject,
    SyncObject,
    Transfer,
)
from windlass.store.declaring import entry_row
from windlass.store.hearing import put_said
from windlass.store.inbox import MESSAGE_SOURCES
from windlass.store.rows import Row
from windlass.store.statements import Transaction
from windlass_schemas import Key


async def ask(at: Transaction, request: Request, now: datetime) -> tuple[Key, ...]:
    """Do it; the keys to look at. Raises StoreError."""
    if isinstance(request, Approve):
        return await _approve(at, request, now)
    row = await at.one("object_by_key", key=str(request.key))
    if row is None:
        raise StoreError(f"there is no {request.key.short}; see: windlass get")
    key = str(request.key)
    action = message = ""
    match request:
        case Delete():
            await _check_deletable(at, row)
            await at.one("mark_deleting", key=key, now=rows.time_text(now))
            action = "DeletionRequested"
        case SuspendObject(reason=reason):
            await at.one("set_suspended", key=key, reason=reason)
            action, message = "Suspended", reason
        case ResumeObject():
            await at.one("set_suspended", key=key, reason="")
            action = "Resumed"
        case Transfer(to=to):
            await _transfer(at, row, request.key, to, now)
            action, message = "Transferred", f"from {row['source']} to {to}"
        case SyncObject(token=token):
            await at.one("set_sync_token", key=key, token=token)
            action = "SyncRequested"
    entry = _entry(row, request.author, action, message, now)
    await at.one("insert_history", **entry_row(entry))
    return (request.key,)


async def _check_deletable(at: Transaction, row: Row) -> None:
    """A declared object would come back: whoever wants it gone removes the document."""
    failed = {source["id"] for source in await at.all("sources") if source["error"]}
    if not row["prune"] and not row["deleting_since"] and row["source"] not in failed:
        if rows.text(row, "source").startswith(MESSAGE_SOURCES):
            name = Key.parse(rows.text(row, "key")).short
            raise StoreError(
                f"{row['source']} declares it by message; withdraw it:"
                f" windlass publish --delete {name}"
            )
        raise StoreError(
            f"{row['source']} declares it at {row['path']}:{row['line']} and would declare it"
            " again; remove it there and commit"
        )


async def _transfer(at: Transaction, row: Row, key: Key, to: str, now: datetime) -> None:
    """Both go on declaring the key; what changes is which of them counts."""
    if row["source"] == to:
        raise StoreError(f"{to} owns {key.short} already; see: windlass describe {key.short}")
    heard = await at.one("heard", source=to, id="", key=str(key))
    said = heard is not None and heard["said"] is not None
    if row["conflict"] != to and not said:
        also = f"; {row['conflict']} does" if row["conflict"] else ""
        raise StoreError(f"{to} does not declare {key.short}{also}; declare it there first")
    await at.one("set_owner", key=str(key), source=to, conflict=rows.text(row, "source"))
    if heard is not None and said:
        await put_said(at, heard, key, to, now)


async def _approve(at: Transaction, request: Approve, now: datetime) -> tuple[Key, ...]:
    waiting = [rows.source_of(row) for row in await at.all("sources")]
    waiting = [source for source in waiting if source.blocked]
    found = [s for s in waiting if request.revision and s.revision.startswith(request.revision)]
    if not found:
        known = ", ".join(source.revision[:12] for source in waiting) or "none"
        raise StoreError(f"no revision {request.revision!r} waits for approval; waiting: {known}")
    keys = [key for source in found for key in source.blocked]
    for key in keys:
        row = await at.one("object_by_key", key=str(key))
        if row is not None and row["prune"] == "blocked":
            await at.one("mark_deleting", key=str(key), now=rows.time_text(now))
            entry = _entry(row, request.author, "PruneApproved", "", now)
            await at.one("insert_history", **entry_row(entry))
    for source in found:
        await at.one("clear_blocked", id=source.id)
    return tuple(keys)


def _entry(row: Row, author: str, action: str, message: str, now: datetime) -> Entry:
    return Entry(
        at=now.astimezone(UTC),
        key=Key.parse(rows.text(row, "key")),
        uid=rows.text(row, "uid"),
        generation=rows.number(row, "generation"),
        revision=rows.text(row, "revision"),
        author=author,
        action=action,
        result="ok",
        message=message,
    )
