"""Write what messages say: hop 2, inside one transaction of any database.

What a source says of a key counts by its revision, not by when it arrives: the newest good word is
in force, and the newest bad one is complained of for as long as no newer good one comes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from pydantic import TypeAdapter

from windlass.store import rows
from windlass.store.base import Document, Snapshot
from windlass.store.declaring import write_takeover
from windlass.store.inbox import MESSAGE_SOURCES, Receipt, SpecMessage
from windlass.store.refusals import tell_refusals
from windlass.store.rows import Row
from windlass.store.statements import Transaction
from windlass.store.takeover import Declared, Takeover, take_document
from windlass_schemas import Key, Reason

KEPT = timedelta(days=7)
"""How long the answer to a message is kept for when it is delivered again."""

_RECEIPT = TypeAdapter(Receipt)


async def hear(
    at: Transaction, messages: Sequence[SpecMessage], install: str, now: datetime
) -> list[Receipt]:
    """Take messages over in their order; one receipt each."""
    receipts = [await _hear_one(at, message, now) for message in messages]
    await _note_sources(at, messages, receipts, now)
    told = [
        (message, receipt)
        for message, receipt in zip(messages, receipts, strict=True)
        if receipt.verdict in ("refused", "conflict")
    ]
    if told:
        await tell_refusals(at, told, install, now)
    await at.one("forget_inbox", before=rows.time_text(now - KEPT))
    return receipts


async def retake(at: Transaction, key: Key, source: str, now: datetime) -> tuple[Key, ...]:
    """Put what a message source has said of a key last into force, where nobody owns it."""
    row = await at.one("heard", source=source, id="", key=str(key))
    said = None if row is None else rows.optional_text(row, "said")
    if row is None or said is None or row["uid"] is not None:
        return ()
    await put_said(at, row, key, source, now)
    return (key,)


async def put_said(at: Transaction, row: Row, key: Key, source: str, now: datetime) -> None:
    """Declare what a source has said; ``row`` is of the statement ``heard``."""
    document = rows.document_of(rows.text(row, "said"))
    declared = _declared_of(row)
    if declared is not None:
        declared = declared._replace(source=source)
    result = Takeover()
    take_document(result, declared, document, source)
    revision, author = str(row["said_revision"]), rows.text(row, "said_by")
    snapshot = Snapshot(source, revision, author, (document,))
    await write_takeover(at, result, snapshot, _known(row, key), now)


async def _hear_one(at: Transaction, message: SpecMessage, now: datetime) -> Receipt:
    key = "" if message.key is None else str(message.key)
    row = await at.one("heard", source=message.source, id=message.id, key=key)
    assert row is not None
    answered = rows.optional_text(row, "answer")
    if answered is not None:
        before = _RECEIPT.validate_json(answered)
        said = f"was taken before ({before.verdict})" + (
            f": {before.message}" if before.message else ""
        )
        return replace(before, verdict="duplicate", message=said)
    receipt = await _take(at, message, row, now)
    await at.one(
        "put_inbox",
        source=message.source,
        id=message.id,
        answer=_RECEIPT.dump_json(receipt).decode(),
        now=rows.time_text(now),
    )
    return receipt


async def _take(at: Transaction, message: SpecMessage, row: Row, now: datetime) -> Receipt:
    if message.faults:
        return await _refuse(at, message, row)
    assert message.key is not None
    newest = row["said_revision"] or 0
    assert isinstance(newest, int)
    if message.revision <= newest:
        return Receipt(
            "stale",
            message.key,
            message=f"revision {message.revision} comes after {newest}, which was taken already;"
            " publish with a higher revision",
        )
    await _remember(at, message, row)
    if message.document is None:
        receipt = await _delete(at, message, row, now)
    else:
        receipt = await _put(at, message, message.document, row, now)
    await _settle_faults(at, message, row, receipt)
    return receipt


async def _refuse(at: Transaction, message: SpecMessage, row: Row) -> Receipt:
    """Keep what is wrong with the newest word, unless a newer good one is there."""
    known = max(int(row[name] or 0) for name in ("said_revision", "fault_revision"))
    if message.counts and message.revision > known:
        faults = rows.lines_json([str(fault) for fault in message.faults])
        await at.one(
            "speak_badly",
            source=message.source,
            key=str(message.key),
            fault_revision=message.revision,
            faults=faults,
        )
        if row["source"] == message.source:
            await at.one("set_faults", key=str(message.key), faults=faults)
    return Receipt(
        "refused",
        message.key,
        message=str(message.faults[0]),
        faults=message.faults,
        reason=message.reason,
    )


async def _remember(at: Transaction, message: SpecMessage, row: Row) -> None:
    mended = message.revision > int(row["fault_revision"] or 0)
    await at.one(
        "speak",
        source=message.source,
        key=str(message.key),
        revision=message.revision,
        document=None if message.document is None else rows.document_json(message.document),
        author=message.author,
        mended=int(mended),
    )


async def _put(
    at: Transaction, message: SpecMessage, document: Document, row: Row, now: datetime
) -> Receipt:
    key = message.key
    assert key is not None
    result = Takeover()
    take_document(result, _declared_of(row), document, message.source)
    snapshot = Snapshot(message.source, str(message.revision), message.author, (document,))
    await write_takeover(at, result, snapshot, _known(row, key), now)
    if owner := result.conflicts.get(key):
        return Receipt(
            "conflict",
            key,
            message=f"{owner} owns {key.short} and nothing was written; remove it from one of the"
            f" two, or: windlass transfer {key.short} --to {message.source}",
            reason=Reason.SOURCE_CONFLICT,
        )
    after = await at.one("heard", source=message.source, id="", key=str(key))
    assert after is not None
    done = bool(result.insert or result.update or result.redeclare)
    uid, generation = rows.text(after, "uid"), rows.number(after, "generation")
    return Receipt("accepted" if done else "unchanged", key, uid, generation)


async def _delete(at: Transaction, message: SpecMessage, row: Row, now: datetime) -> Receipt:
    key, declared = message.key, _declared_of(row)
    assert key is not None
    if declared is None or declared.deleting:
        return Receipt("unchanged", key, message="it is not there, or going already")
    if declared.source != message.source:
        if declared.conflict == message.source:
            await at.one("set_conflict", key=str(key), conflict="")
        said = f"{declared.source} owns {key.short}; you declare it no more"
        return Receipt("unchanged", key, message=said)
    uid, generation = rows.text(row, "uid"), rows.number(row, "generation")
    if declared.prune_policy == "auto":
        await at.one("mark_deleting", key=str(key), now=rows.time_text(now))
        return Receipt("deleting", key, uid, generation)
    asks = declared.prune_policy == "confirm"
    await at.one("set_prune", key=str(key), prune="awaiting" if asks else "skipped")
    said = f"prune: confirm keeps it until: windlass delete {key.short}"
    if not asks:
        said = f"prune: never keeps it; to have it gone: windlass delete {key.short}"
    return Receipt("deleting", key, uid, generation, message=said)


async def _settle_faults(at: Transaction, message: SpecMessage, row: Row, receipt: Receipt) -> None:
    """A good word mends older bad ones; a newer bad one stays complained of."""
    if receipt.verdict == "conflict" or receipt.uid == "":
        return
    newer = int(row["fault_revision"] or 0) > message.revision
    faults = rows.text(row, "said_faults") if newer else "[]"
    if newer or row["faults"] not in (None, "[]"):
        await at.one("set_faults", key=str(message.key), faults=faults)


async def _note_sources(
    at: Transaction, messages: Sequence[SpecMessage], receipts: Sequence[Receipt], now: datetime
) -> None:
    """What is known of each source that has spoken."""
    newest: dict[str, int] = {}
    for message, receipt in zip(messages, receipts, strict=True):
        if message.source != MESSAGE_SOURCES and receipt.verdict not in ("duplicate", "stale"):
            newest[message.source] = max(message.revision, newest.get(message.source, 0))
    for source, revision in sorted(newest.items()):
        faults = [
            line
            for row in await at.all("bad_words", source=source)
            for line in json.loads(rows.text(row, "faults"))
        ]
        await at.one(
            "put_source",
            id=source,
            revision=str(revision),
            faults=rows.lines_json(faults),
            blocked="[]",
            now=rows.time_text(now),
        )


def _known(row: Row, key: Key) -> Mapping[str, Row]:
    return {} if row["uid"] is None else {str(key): row}


def _declared_of(row: Row) -> Declared | None:
    return None if row["uid"] is None else rows.declared_of(row)
