"""Write what a source declares: hop 2, inside one transaction of any database."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from windlass.store import rows
from windlass.store.base import Applied, Document, Entry, Snapshot
from windlass.store.rows import Row
from windlass.store.statements import Transaction, Value
from windlass.store.takeover import Takeover, take_over
from windlass_schemas import Resource, Target, references_of


def lane_of(resource: Resource) -> str:
    """``namespace/target``: where a resource is to run. A Target is its own."""
    metadata = resource.metadata
    target = metadata.name if isinstance(resource, Target) else resource.spec.target
    return f"{metadata.namespace}/{target}"


async def declare(at: Transaction, snapshot: Snapshot, now: datetime) -> Applied:
    """Compare a source's whole set with the books, and write what that means."""
    source = snapshot.source
    changed, unchanged = _compare(await at.all("plainly_declared", source=source), snapshot)
    listed = await at.all("declared", source=source, keys=rows.lines_json(changed.keys))
    known = {rows.text(row, "key"): row for row in listed}
    declared = [rows.declared_of(row) for row in listed]
    result = take_over(declared, replace(snapshot, documents=changed.documents), unchanged)
    await write_takeover(at, result, snapshot, known, now)
    await at.one(
        "put_source",
        id=snapshot.source,
        revision=snapshot.revision,
        faults=rows.lines_json(_complaints(snapshot, result)),
        blocked=rows.lines_json([str(key) for key in result.blocked]),
        now=rows.time_text(now),
    )
    due = [d.key for d in result.insert + result.update + result.redeclare]
    due += [*result.faults, *result.conflict, *result.delete, *result.prune]
    return Applied(
        changed=tuple(dict.fromkeys(due)),
        conflicts=result.conflicts,
        pruning=tuple(result.delete),
        blocked=tuple(result.blocked),
    )


class _Changed(NamedTuple):
    """What has to be looked at closely."""

    documents: tuple[Document, ...]
    keys: list[str]
    """Of rows without a mark that say something else, or have no document any more."""


def _compare(plain: Sequence[Row], snapshot: Snapshot) -> tuple[_Changed, int]:
    """What differs from the source's rows that bear no mark, and how many are just as declared.

    At a commit nearly all are.
    """
    said = {row["key"]: row for row in plain}
    faulty = {fault.key for fault in snapshot.faults}
    changed = tuple(
        document
        for document in snapshot.documents
        if not _says(said.get(document.name), document) or document.key in faulty
    )
    as_declared = {d.name for d in snapshot.documents} - {d.name for d in changed}
    keys = [str(key) for key in said if key not in as_declared]
    return _Changed(changed, keys), len(said) - len(keys)


def _says(row: Row | None, document: Document) -> bool:
    return (
        row is not None
        and row["digest"] == document.digest
        and row["resource"] == document.canonical
        and row["path"] == document.path
        and row["line"] == document.line
    )


def _complaints(snapshot: Snapshot, result: Takeover) -> list[str]:
    """What is wrong with a source's set, for people: faults, and keys that others own."""
    conflicting = (d for d in snapshot.documents if d.key in result.conflicts)
    places = {d.key: f"{d.path}:{d.line}" for d in conflicting}
    conflicts = [
        f"{places[key]} SourceConflict: {owner} owns {key.short}; remove it from one of the two,"
        f" or: windlass transfer {key.short} --to {snapshot.source}"
        for key, owner in sorted(result.conflicts.items())
    ]
    return [str(fault) for fault in snapshot.faults] + conflicts


async def write_takeover(
    at: Transaction,
    result: Takeover,
    snapshot: Snapshot,
    known: Mapping[str, Row],
    now: datetime,
) -> None:
    """Documents, marks and history; ``known`` has the rows that are there, by key."""
    uids = {d.name: uuid.uuid4().hex for d in result.insert}
    await _put_documents(at, result, snapshot, uids, now)
    await _put_marks(at, result, now)
    declared = [_declared(document, snapshot, now, uids, known) for document in _new(result)]
    await at.many("insert_history", [entry_row(entry) for entry in declared])


def _new(result: Takeover) -> Iterable[Document]:
    return [*result.insert, *result.update]


async def _put_documents(
    at: Transaction,
    result: Takeover,
    snapshot: Snapshot,
    uids: Mapping[str, str],
    now: datetime,
) -> None:
    for statement, documents in (
        ("insert_desired", result.insert),
        ("update_desired", result.update),
        ("redeclare", result.redeclare),
    ):
        said = [_document_row(d, snapshot, uids, rows.time_text(now)) for d in documents]
        await at.many(statement, said)
        await at.many("clear_references", [{"key": row["key"]} for row in said])
        references = [
            {"from_key": d.name, "to_key": str(reference.key)}
            for d in documents
            for reference in references_of(d.resource)
        ]
        await at.many("insert_reference", references)


def _document_row(
    document: Document, snapshot: Snapshot, uids: Mapping[str, str], now: str
) -> dict[str, Value]:
    key = document.key
    return {
        "key": document.name,
        "kind": key.kind,
        "namespace": key.namespace,
        "name": key.name,
        "uid": uids.get(document.name),
        "source": snapshot.source,
        "digest": document.digest,
        "resource": document.canonical,
        "files": rows.files_json(document.files),
        "revision": snapshot.revision,
        "author": snapshot.author,
        "path": document.path,
        "line": document.line,
        "lane": lane_of(document.resource),
        "now": now,
    }


async def _put_marks(at: Transaction, result: Takeover, now: datetime) -> None:
    for key, faults in result.faults.items():
        await at.one("set_faults", key=str(key), faults=rows.lines_json(faults))
    for key, other in result.conflict.items():
        await at.one("set_conflict", key=str(key), conflict=other)
    for key, flag in result.prune.items():
        await at.one("set_prune", key=str(key), prune=flag)
    for key in result.delete:
        await at.one("mark_deleting", key=str(key), now=rows.time_text(now))


def _declared(
    document: Document,
    snapshot: Snapshot,
    now: datetime,
    uids: Mapping[str, str],
    known: Mapping[str, Row],
) -> Entry:
    """The line of the history about a new generation."""
    key = document.key
    before = known.get(document.name)
    return Entry(
        at=now,
        key=key,
        uid=uids[document.name] if before is None else rows.text(before, "uid"),
        generation=1 if before is None else rows.number(before, "generation") + 1,
        revision=snapshot.revision,
        author=snapshot.author,
        action="Declared",
        result="ok",
        message=f"{document.path}:{document.line}",
    )


def entry_row(entry: Entry) -> dict[str, Value]:
    """A line of the history as a row."""
    return {"key": str(entry.key), "entry": rows.entry_json(entry)}
