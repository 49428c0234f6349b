"""What is declared comes into the store, and what it changes becomes due: hops 2 and 3.

Snapshots of sources and messages go the same way, one at a time. What is declared is not lost:
while the store refuses it, it is written again and again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from windlass.agenda import Agenda
from windlass.clock import Clock
from windlass.lanes import Lanes
from windlass.store.base import Applied, LeaseLostError, Snapshot, Store, StoreError
from windlass.store.declaring import lane_of
from windlass.store.inbox import MESSAGE_SOURCES, Inbox, Receipt, SpecMessage
from windlass.troubles import Troubles
from windlass_schemas import Key

_log = structlog.get_logger("windlass.declarations")

T = TypeVar("T")


class Declarations:
    """Takes over what sources and messages say."""

    def __init__(
        self,
        store: Store,
        agenda: Agenda,
        lanes: Lanes,
        clock: Clock,
        troubles: Troubles,
        retry: float,
    ) -> None:
        """``retry`` is the seconds until a write is tried again that the store did not take."""
        self._store = store
        self._agenda = agenda
        self._lanes = lanes
        self._clock = clock
        self._troubles = troubles
        self._retry = retry
        self._snapshots: dict[str, Snapshot] = {}
        """The newest of each source."""
        self._taking = asyncio.Lock()
        """Held until what a revision changes is in the store and in the queue."""
        self.inbox: Inbox | None = None
        """Where messages are written, once they are listened to."""

    @property
    def busy(self) -> bool:
        """Whether something is being taken over now: what it changes is not due yet."""
        return self._taking.locked()

    async def take(self, snapshot: Snapshot) -> None:
        """Write a snapshot, however long the store refuses it; a newer one comes after it."""
        async with self._taking:
            self._snapshots[snapshot.source] = snapshot
            applied = await self._apply(snapshot)
            self._troubles.sources.pop(snapshot.source, None)
            await self._agenda.declared(applied.changed)
        _announce(snapshot, applied)

    async def take_again(self, source: str) -> None:
        """Another source has let a key go that this one declares too."""
        async with self._taking:
            snapshot = self._snapshots.get(source)
            if snapshot is None:  # it is not followed any more, or comes with its first set
                return
            try:
                applied = await self._apply(snapshot)
            except LeaseLostError:  # who follows it now has been asked too
                return
            await self._agenda.declared(applied.changed)

    def forget(self, source: str) -> None:
        """Somebody else follows it now, or nobody."""
        self._snapshots.pop(source, None)

    async def let_go(self, key: Key, to: str) -> None:
        """A key is free that another source declares too."""
        if self.inbox is None or not to.startswith(MESSAGE_SOURCES):
            await self.take_again(to)
            return
        async with self._taking:
            taken = await self.inbox.retake(key, to, self._clock())
            await self._agenda.declared(taken)

    async def hear(self, messages: Sequence[SpecMessage]) -> Sequence[Receipt]:
        """Write what messages declare, however long the store refuses it; durable on return.

        Passes begin before that. What they do elsewhere waits for the same disk, by its intent; and
        a run on this machine ends with the power that could undo its message.
        """
        inbox = self.inbox
        assert inbox is not None, "messages are listened to"
        for message in messages:
            if message.document is not None:
                self._lanes.put(message.document.key, lane_of(message.document.resource))
        async with self._taking:
            receipts = await self._insist(lambda: inbox.receive(messages, self._clock()))
            due = [r.key for r in receipts if r.is_due and r.key is not None]
            await self._agenda.declared(tuple(dict.fromkeys(due)))
        await self._insist(inbox.durable)
        return receipts

    async def lose(self, source: str, error: str) -> None:
        """A source cannot be read. What it has declared stays."""
        _log.error("source cannot be read; nothing is removed", source=source, error=error)
        self._troubles.sources[source] = error
        try:
            await self._store.fail_source(source, error, self._clock())
        except StoreError as store_error:
            _log.error("source state not written", error=str(store_error))

    async def _apply(self, snapshot: Snapshot) -> Applied:
        applied = await self._insist(lambda: self._store.apply(snapshot, self._clock()))
        changed = frozenset(applied.changed)
        for document in snapshot.documents:
            if document.key in changed:
                self._lanes.put(document.key, lane_of(document.resource))
        return applied

    async def _insist(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write what is declared. Raises LeaseLostError, and waits out everything else."""
        while True:
            try:
                result = await write()
            except LeaseLostError:
                raise
            except StoreError as error:
                self._troubles.store = str(error)
                _log.error("what is declared is not written; trying again", error=str(error))
                await asyncio.sleep(self._retry)
            else:
                self._troubles.store = ""
                return result


def _announce(snapshot: Snapshot, applied: Applied) -> None:
    """Tell people what a revision did, and each thing that is wrong with it."""
    for fault in snapshot.faults:
        _log.error(str(fault))
    for key, owner in applied.conflicts.items():
        _log.error("declared by two sources; the first keeps it", key=str(key), owner=owner)
    if applied.blocked:
        _log.error(
            "this revision would remove too much at once; look, then:"
            f" windlass approve {snapshot.revision[:12]}",
            revision=snapshot.revision,
            objects=[str(key) for key in applied.blocked],
        )
    _log.info(
        "revision taken over",
        revision=snapshot.revision[:12],
        author=snapshot.author,
        objects=len(snapshot.documents),
        changed=len(applied.changed),
        removing=len(applied.pruning),
        faults=len(snapshot.faults),
    )
