"""The store port over named statements: one set of books for every database.

A database brings transactions, its own SQL under the same names, and its way to say who may write.
"""

from __future__ import annotations

import builtins
from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime

from windlass.priority import Priority
from windlass.store import rows
from windlass.store.asking import ask
from windlass.store.base import (
    Applied,
    Claim,
    Entry,
    ExternalRecord,
    Object,
    Outcome,
    Request,
    Snapshot,
    SourceState,
    Store,
    Transfer,
)
from windlass.store.declaring import declare, entry_row
from windlass.store.hearing import hear, retake
from windlass.store.inbox import Inbox, Receipt, SpecMessage
from windlass.store.recording import changes_nothing, guard, put_record, record_outcome
from windlass.store.rows import Row
from windlass.store.statements import T, Transaction, Value, Work
from windlass_schemas import CloudEvent, Key

FEW_MESSAGES = 16
"""Messages that are written at once. More are work of some length."""


class Books(Store, Inbox):
    """What is the same for every database."""

    @abstractmethod
    async def _read(self, work: Work[T]) -> T:
        """Run work that writes nothing, on one consistent state. Raises StoreError."""

    @abstractmethod
    async def _write(self, work: Work[T]) -> T:
        """Run a pass's transaction. Raises StoreError."""

    async def _note(self, work: Work[T]) -> T:
        """Run a pass's transaction that a power cut may undo. Raises StoreError."""
        return await self._write(work)

    @abstractmethod
    async def _change(self, work: Work[T], source: str = "", *, quick: bool = False) -> T:
        """Run a transaction on what is declared, by a daemon that may, for the source named.

        ``quick``: it is a few statements, and who relies on it waits for ``durable``. Raises
        StoreError, and LeaseLostError when it may not.
        """

    # -- hop 2: what sources declare ------------------------------------------------------------

    async def apply(self, snapshot: Snapshot, now: datetime) -> Applied:
        async def work(at: Transaction) -> Applied:
            applied = await declare(at, snapshot, now)
            await self._wake(at, applied.changed, Priority.EDIT)
            return applied

        return await self._change(work, snapshot.source)

    async def fail_source(self, source: str, error: str, now: datetime) -> None:
        async def work(at: Transaction) -> None:
            await at.one("fail_source", id=source, error=error, now=rows.time_text(now))

        await self._change(work)

    async def receive(self, messages: Sequence[SpecMessage], now: datetime) -> Sequence[Receipt]:
        async def work(at: Transaction) -> Sequence[Receipt]:
            receipts = await hear(at, messages, self.install, now)
            changed = [r.key for r in receipts if r.is_due and r.key is not None]
            await self._wake(at, tuple(dict.fromkeys(changed)), Priority.EDIT)
            return receipts

        return await self._change(work, quick=len(messages) <= FEW_MESSAGES)

    async def durable(self) -> None:
        """What a server has committed is."""

    async def retake(self, key: Key, source: str, now: datetime) -> tuple[Key, ...]:
        async def work(at: Transaction) -> tuple[Key, ...]:
            keys = await retake(at, key, source, now)
            await self._wake(at, keys, Priority.EDIT)
            return keys

        return await self._change(work)

    # -- hops 4, 7 and 8: a pass ----------------------------------------------------------------

    async def intend(
        self,
        claim: Claim,
        record: ExternalRecord,
        entry: Entry | None,
        *,
        through_power_cut: bool = True,
    ) -> None:
        async def work(at: Transaction) -> None:
            await self._guard(at, claim)
            await put_record(at, claim.object, record)
            if entry is not None:
                await at.one("insert_history", **entry_row(entry))

        await (self._write if through_power_cut else self._note)(work)

    async def commit(self, claim: Claim, outcome: Outcome) -> None:
        if changes_nothing(claim, outcome):
            await self._let_go(claim, outcome)
            return

        async def work(at: Transaction) -> None:
            await self._prepare(at, claim, outcome)
            await record_outcome(at, claim, outcome)

        await self._write(work)

    # -- what only a shared store has to do -----------------------------------------------------

    async def _wake(self, at: Transaction, keys: Sequence[Key], priority: Priority) -> None:
        """These are due, and what stands on them."""

    async def _revisit(self, at: Transaction, source: str) -> None:
        """Whoever follows that source is to declare its set again."""

    async def _prepare(self, at: Transaction, claim: Claim, outcome: Outcome) -> None:
        """Let only the claim's holder write; say when the object is due again, and who else."""
        await self._guard(at, claim)

    async def _guard(self, at: Transaction, claim: Claim) -> None:
        await guard(at, claim)

    async def _let_go(self, claim: Claim, outcome: Outcome) -> None:
        """A pass has changed nothing: say when the object is due again."""

    # -- reading --------------------------------------------------------------------------------

    async def get(self, key: Key) -> Object | None:
        row = await self._one("object_by_key", key=str(key))
        return None if row is None else rows.object_of(row)

    async def list(self, kind: str | None = None, namespace: str | None = None) -> Sequence[Object]:
        async def work(at: Transaction) -> Sequence[Object]:
            found = await at.all("objects", kind=kind, namespace=namespace)
            return [rows.object_of(row) for row in found]

        return await self._read(work)

    async def placed(self) -> Sequence[tuple[Key, str]]:
        return [rows.placed_of(row) for row in await self._all("placed")]

    async def dependents(self, key: Key) -> Sequence[Key]:
        found = await self._all("dependents", key=str(key))
        return [Key.parse(rows.text(row, "from_key")) for row in found]

    async def sources(self) -> Sequence[SourceState]:
        return [rows.source_of(row) for row in await self._all("sources")]

    async def history(self, key: Key, limit: int) -> Sequence[Entry]:
        found = await self._all("history", key=str(key), limit=limit)
        return [rows.entry_of(rows.text(row, "entry")) for row in found]

    async def events(self, after: int, limit: int) -> Sequence[tuple[int, CloudEvent]]:
        return [_event_of(row) for row in await self._all("events", after=after, limit=limit)]

    async def unpublished(self, limit: int) -> Sequence[tuple[int, CloudEvent]]:
        return [_event_of(row) for row in await self._all("unpublished", limit=limit)]

    async def backlog(self) -> int:
        row = await self._one("backlog")
        return 0 if row is None else rows.number(row, "events")

    async def published(self, positions: Sequence[int] | None, now: datetime) -> None:
        at_that = rows.time_text(now)
        marks: builtins.list[dict[str, Value]] = [
            {"position": position, "now": at_that} for position in positions or ()
        ]

        async def work(at: Transaction) -> None:
            if positions is None:
                await at.one("mark_all_published", now=at_that)
            await at.many("mark_published", marks)

        await self._write(work)

    async def _one(self, statement: str, **values: Value) -> Row | None:
        async def work(at: Transaction) -> Row | None:
            return await at.one(statement, **values)

        return await self._read(work)

    async def _all(self, statement: str, **values: Value) -> builtins.list[Row]:
        async def work(at: Transaction) -> builtins.list[Row]:
            return await at.all(statement, **values)

        return await self._read(work)

    # -- what people ask for --------------------------------------------------------------------

    async def request(self, request: Request, now: datetime) -> tuple[Key, ...]:
        async def work(at: Transaction) -> tuple[Key, ...]:
            keys = await ask(at, request, now)
            if isinstance(request, Transfer):
                await self._revisit(at, request.to)
            await self._wake(at, keys, Priority.EDIT)
            return keys

        return await self._change(work)


def _event_of(row: Row) -> tuple[int, CloudEvent]:
    return rows.number(row, "position"), rows.event_of(rows.text(row, "event"))
