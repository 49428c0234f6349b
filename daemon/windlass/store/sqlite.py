"""The embedded store: one SQLite file, one process. Each port method is one transaction."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime
from pathlib import Path

from windlass.store import rows
from windlass.store.base import (
    Applied,
    Approve,
    Claim,
    Delete,
    Document,
    Entry,
    ExternalRecord,
    ExternalTakenError,
    LeaseLostError,
    Object,
    Outcome,
    RecordState,
    Request,
    ResumeObject,
    Snapshot,
    SourceState,
    Store,
    StoreError,
    SuspendObject,
    SyncObject,
)
from windlass.store.database import Database, Value
from windlass.store.takeover import Takeover, take_over
from windlass_schemas import (
    CloudEvent,
    Key,
    key_of,
    references_of,
)

DATABASE = "windlass.db"
"""The file's name in the state folder."""


class SqliteStore(Store):
    """State in one file. Build with ``open``; the caller holds the folder's lock."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self.install = ""
        self._token = 0

    @classmethod
    async def open(cls, file: Path, thread: Executor | None = None) -> SqliteStore:
        """Open or make the file. Arguments and StoreError are as for ``Database.open``."""
        store = cls(await Database.open(file, thread))
        try:
            await store._db.run(store._start)
        except BaseException:
            await store.close()
            raise
        return store

    def _start(self) -> None:
        with self._db.transaction():
            found = self._db.one("get_meta", key="install")
            self.install = found["value"] if found else uuid.uuid4().hex
            if not found:
                self._db.one("put_meta", key="install", value=self.install)
            row = self._db.one("raise_session_token")
            assert row is not None
            self._token = row["token"]

    @property
    def writes(self) -> int:
        """How many rows were written since the file was opened."""
        return self._db.connection.total_changes

    # -- hop 2: what sources declare ------------------------------------------------------------

    async def apply(self, snapshot: Snapshot, now: datetime) -> Applied:
        return await self._db.run(self._apply, snapshot, now)

    def _apply(self, snapshot: Snapshot, now: datetime) -> Applied:
        with self._db.transaction():
            self._check_session()
            declared = [rows.declared_of(dict(row)) for row in self._db.all("declared")]
            result = take_over(declared, snapshot)
            self._write(result, snapshot, rows.time_text(now))
            for document in result.insert:
                self._note(document, snapshot, now, 1)
            for document in result.update:
                row = self._db.one("object_by_key", key=str(key_of(document.resource)))
                assert row is not None
                self._note(document, snapshot, now, row["generation"])
        changed = [key_of(d.resource) for d in result.insert + result.update + result.redeclare]
        changed += [*result.faults, *result.conflict, *result.delete, *result.prune]
        return Applied(
            changed=tuple(dict.fromkeys(changed)),
            conflicts=result.conflicts,
            pruning=tuple(result.delete),
            blocked=tuple(result.blocked),
        )

    def _write(self, result: Takeover, snapshot: Snapshot, now: str) -> None:
        for statement, documents in (
            ("insert_desired", result.insert),
            ("update_desired", result.update),
            ("redeclare", result.redeclare),
        ):
            for document in documents:
                self._declare(statement, document, snapshot, now)
        for key, faults in result.faults.items():
            self._db.one("set_faults", key=str(key), faults=rows.lines_json(faults))
        for key, other in result.conflict.items():
            self._db.one("set_conflict", key=str(key), conflict=other)
        for key, flag in result.prune.items():
            self._db.one("set_prune", key=str(key), prune=flag)
        for key in result.delete:
            self._db.one("mark_deleting", key=str(key), now=now)
        self._db.one(
            "put_source",
            id=snapshot.source,
            revision=snapshot.revision,
            faults=rows.lines_json([str(fault) for fault in snapshot.faults]),
            blocked=rows.lines_json([str(key) for key in result.blocked]),
            now=now,
        )

    def _declare(self, statement: str, document: Document, snapshot: Snapshot, now: str) -> None:
        key = key_of(document.resource)
        self._db.one(
            statement,
            key=str(key),
            kind=key.kind,
            namespace=key.namespace,
            name=key.name,
            uid=uuid.uuid4().hex,
            source=snapshot.source,
            digest=document.digest,
            resource=document.canonical,
            files=rows.files_json(document.files),
            revision=snapshot.revision,
            author=snapshot.author,
            path=document.path,
            line=document.line,
            now=now,
        )
        self._db.one("clear_references", key=str(key))
        for reference in references_of(document.resource):
            self._db.one("insert_reference", from_key=str(key), to_key=str(reference.key))

    def _note(self, document: Document, snapshot: Snapshot, now: datetime, generation: int) -> None:
        key = key_of(document.resource)
        row = self._db.one("object_by_key", key=str(key))
        assert row is not None
        self._history(
            Entry(
                at=now,
                key=key,
                uid=row["uid"],
                generation=generation,
                revision=snapshot.revision,
                author=snapshot.author,
                action="Declared",
                result="ok",
                message=f"{document.path}:{document.line}",
            )
        )

    async def fail_source(self, source: str, error: str, now: datetime) -> None:
        await self._db.run(
            self._write_one, "fail_source", id=source, error=error, now=rows.time_text(now)
        )

    def _write_one(self, statement: str, **values: Value) -> None:
        with self._db.transaction():
            self._check_session()
            self._db.one(statement, **values)

    # -- hops 4, 7 and 8: a pass ----------------------------------------------------------------

    async def claim(self, key: Key) -> Claim | None:
        found = await self.get(key)
        return None if found is None else Claim(found, self._token)

    async def intend(self, claim: Claim, record: ExternalRecord, entry: Entry | None) -> None:
        await self._db.write(self._intend, claim, record, entry)

    def _intend(self, claim: Claim, record: ExternalRecord, entry: Entry | None) -> None:
        with self._db.transaction():
            self._guard(claim)
            self._put_record(claim.object, record)
            if entry is not None:
                self._history(entry)

    async def commit(self, claim: Claim, outcome: Outcome) -> None:
        before = claim.object
        same = outcome.status == before.status and outcome.hold == before.hold
        if same and not (
            outcome.externals or outcome.events or outcome.history or outcome.finalized
        ):
            return
        await self._db.write(self._commit, claim, outcome)

    def _commit(self, claim: Claim, outcome: Outcome) -> None:
        uid = claim.object.uid
        with self._db.transaction():
            self._guard(claim)
            for record in outcome.externals:
                self._put_record(claim.object, record)
            for event in outcome.events:
                self._db.one(
                    "insert_event", uid=uid, seq=event.data.seq, event=event.model_dump_json()
                )
            for entry in outcome.history:
                self._history(entry)
            if outcome.finalized:
                self._check_still_going(claim)
                self._db.one("clear_references", key=str(claim.object.key))
                self._db.one("delete_desired", uid=uid)
            else:
                self._db.one(
                    "put_object",
                    uid=uid,
                    status=outcome.status.model_dump_json(),
                    hold=rows.hold_json(outcome.hold),
                    seq=claim.object.seq + len(outcome.events),
                )

    def _check_session(self) -> None:
        row = self._db.one("session_token")
        assert row is not None
        if row["token"] != self._token:
            raise LeaseLostError("another daemon has opened this database since; stop this one")

    def _guard(self, claim: Claim) -> None:
        """Refuse a writer whose claim is no longer the newest."""
        row = self._db.one("guard", uid=claim.object.uid)
        assert row is not None
        if row["token"] != claim.token:
            raise LeaseLostError("another daemon has opened this database since; stop this one")
        if not row["declared"] or (row["seq"] or 0) != claim.object.seq:
            raise LeaseLostError(f"{claim.object.key} was written by someone else meanwhile")

    def _check_still_going(self, claim: Claim) -> None:
        """What was declared again while its last pass ran does not go."""
        row = self._db.one("guard", uid=claim.object.uid)
        assert row is not None
        if row["deleting_since"] is None:
            raise LeaseLostError(f"{claim.object.key} was declared again meanwhile")

    def _put_record(self, owner: Object, record: ExternalRecord) -> None:
        target, role, name = record.name
        if record.state in (RecordState.GONE, RecordState.ORPHANED):
            self._db.one("delete_external", target=target, role=role, name=name, uid=owner.uid)
            return
        over = record.state not in (
            RecordState.INTENDED,
            RecordState.CREATED,
        )  # its id may come again
        try:
            taken = self._db.one(
                "put_external",
                target=target,
                role=role,
                name=name,
                uid=owner.uid,
                external_id=None if over else record.external_id,
                record=rows.record_json(record),
            )
        except sqlite3.IntegrityError as error:
            raise StoreError(f"{role} {record.external_id} on {target} is taken") from error
        if taken is None:
            raise ExternalTakenError(
                f"{role} {name} on {target} belongs to another object; use another name"
            )

    def _history(self, entry: Entry) -> None:
        self._db.one("insert_history", key=str(entry.key), entry=rows.entry_json(entry))

    # -- reading --------------------------------------------------------------------------------

    async def get(self, key: Key) -> Object | None:
        return await self._db.run(self._get, key)

    def _get(self, key: Key) -> Object | None:
        row = self._db.one("object_by_key", key=str(key))
        if row is None:
            return None
        records = [rows.record_of(r["record"]) for r in self._db.all("externals", uid=row["uid"])]
        return rows.object_of(dict(row), records)

    async def list(self, kind: str | None = None, namespace: str | None = None) -> Sequence[Object]:
        return await self._db.run(self._list, kind, namespace)

    def _list(self, kind: str | None, namespace: str | None) -> Sequence[Object]:
        records: dict[str, list[ExternalRecord]] = {}
        for row in self._db.all("all_externals"):
            records.setdefault(row["uid"], []).append(rows.record_of(row["record"]))
        found = self._db.all("objects", kind=kind, namespace=namespace)
        return [rows.object_of(dict(row), records.get(row["uid"], ())) for row in found]

    async def dependents(self, key: Key) -> Sequence[Key]:
        found = await self._db.run(self._db.all, "dependents", key=str(key))
        return [Key.parse(row["from_key"]) for row in found]

    async def sources(self) -> Sequence[SourceState]:
        return [rows.source_of(dict(row)) for row in await self._db.run(self._db.all, "sources")]

    async def history(self, key: Key, limit: int) -> Sequence[Entry]:
        found = await self._db.run(self._db.all, "history", key=str(key), limit=limit)
        return [rows.entry_of(row["entry"]) for row in found]

    async def events(self, after: int, limit: int) -> Sequence[tuple[int, CloudEvent]]:
        found = await self._db.run(self._db.all, "events", after=after, limit=limit)
        return [(row["position"], rows.event_of(row["event"])) for row in found]

    async def unpublished(self, limit: int) -> Sequence[tuple[int, CloudEvent]]:
        found = await self._db.run(self._db.all, "unpublished", limit=limit)
        return [(row["position"], rows.event_of(row["event"])) for row in found]

    async def published(self, positions: Sequence[int], now: datetime) -> None:
        await self._db.write(self._published, positions, rows.time_text(now))

    def _published(self, positions: Sequence[int], now: str) -> None:
        with self._db.transaction():
            for position in positions:
                self._db.one("mark_published", position=position, now=now)

    # -- what people ask for --------------------------------------------------------------------

    async def request(self, request: Request, now: datetime) -> tuple[Key, ...]:
        return await self._db.run(self._request, request, now)

    def _request(self, request: Request, now: datetime) -> tuple[Key, ...]:
        with self._db.transaction():
            self._check_session()
            if isinstance(request, Approve):
                return self._approve(request, now)
            row = self._db.one("object_by_key", key=str(request.key))
            if row is None:
                raise StoreError(f"there is no {request.key.short}; see: windlass get")
            key = str(request.key)
            action = message = ""
            match request:
                case Delete():
                    self._check_deletable(row)
                    self._db.one("mark_deleting", key=key, now=rows.time_text(now))
                    action = "DeletionRequested"
                case SuspendObject(reason=reason):
                    self._db.one("set_suspended", key=key, reason=reason)
                    action, message = "Suspended", reason
                case ResumeObject():
                    self._db.one("set_suspended", key=key, reason="")
                    action = "Resumed"
                case SyncObject(token=token):
                    self._db.one("set_sync_token", key=key, token=token)
                    action = "SyncRequested"
            self._history(_entry(row, request.author, action, message, now))
            return (request.key,)

    def _check_deletable(self, row: sqlite3.Row) -> None:
        """A declared object would come back: whoever wants it gone removes the document."""
        failed = {r["id"] for r in self._db.all("sources") if r["error"]}
        if not row["prune"] and not row["deleting_since"] and row["source"] not in failed:
            raise StoreError(
                f"{row['source']} declares it at {row['path']}:{row['line']} and would declare it"
                " again; remove it there and commit"
            )

    def _approve(self, request: Approve, now: datetime) -> tuple[Key, ...]:
        waiting = [rows.source_of(dict(row)) for row in self._db.all("sources")]
        waiting = [source for source in waiting if source.blocked]
        found = [s for s in waiting if request.revision and s.revision.startswith(request.revision)]
        if not found:
            known = ", ".join(source.revision[:12] for source in waiting) or "none"
            raise StoreError(
                f"no revision {request.revision!r} waits for approval; waiting: {known}"
            )
        keys = [key for source in found for key in source.blocked]
        for key in keys:
            row = self._db.one("object_by_key", key=str(key))
            if row is not None and row["prune"] == "blocked":
                self._db.one("mark_deleting", key=str(key), now=rows.time_text(now))
                self._history(_entry(row, request.author, "PruneApproved", "", now))
        for source in found:
            self._db.one("clear_blocked", id=source.id)
        return tuple(keys)

    async def close(self) -> None:
        await self._db.close()


def _entry(row: sqlite3.Row, author: str, action: str, message: str, now: datetime) -> Entry:
    return Entry(
        at=now.astimezone(UTC),
        key=Key.parse(row["key"]),
        uid=row["uid"],
        generation=row["generation"],
        revision=row["revision"],
        author=author,
        action=action,
        result="ok",
        message=message,
    )
