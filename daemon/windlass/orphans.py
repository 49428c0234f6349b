"""Beside the eight hops: what backends still hold of ours though no object declares it any more.

Looked for once an hour on each open target that can tell. What costs money is reported, in the log
and as a metric, and left alone; what costs nothing and is used by nothing is removed.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

import structlog

from windlass.metrics import Metrics
from windlass.store.base import Object, StoreError
from windlass.targets import Targets
from windlass_adapters.base import AdapterError, FindsOrphans, Orphan, Owner

INTERVAL = 3600.0
"""Seconds between two looks."""
TIMEOUT = 300.0
"""Seconds that one target gets."""

_log = structlog.get_logger("windlass.orphans")


class Objects(Protocol):
    """What of the store is needed here."""

    install: str

    @abstractmethod
    async def list(self) -> Sequence[Object]:
        """All objects."""


class Orphans:
    """Looks for them, and collects what is free."""

    def __init__(self, store: Objects, targets: Targets, metrics: Metrics) -> None:
        self._store = store
        self._targets = targets
        self._metrics = metrics

    async def run(self, stop: asyncio.Event) -> None:
        """Look once an hour until told to stop."""
        while not stop.is_set():
            try:
                async with asyncio.timeout(INTERVAL):
                    await stop.wait()
            except TimeoutError:
                await self.look()

    async def look(self) -> Sequence[tuple[str, Orphan]]:
        """One look at every open target; (target, orphan) for what is left there now."""
        try:
            objects = await self._store.list()
        except StoreError:
            return ()
        living = [Owner(self._store.install, found.uid, found.key) for found in objects]
        left: list[tuple[str, Orphan]] = []
        for target, adapter in self._targets.finding_orphans():
            try:
                async with asyncio.timeout(TIMEOUT):
                    left += [(target, o) for o in await self._look(target, adapter, living)]
            except (AdapterError, TimeoutError) as error:
                _log.warning("orphans cannot be looked for", target=target, message=str(error))
        return left

    async def _look(
        self, target: str, adapter: FindsOrphans, living: Sequence[Owner]
    ) -> Sequence[Orphan]:
        found = await adapter.orphans(living)
        left = [orphan for orphan in found if not orphan.free]
        self._metrics.orphans.labels(target).set(len(left))
        for orphan in left:
            _log.warning(
                "nothing declares this any more; it costs money until somebody removes it",
                target=target,
                external=f"{orphan.role} {orphan.name}",
                made_for=orphan.ref,
                cost=orphan.cost,
            )
        for orphan in found:
            if orphan.free:
                await adapter.collect(orphan)
                _log.info("collected", target=target, external=f"{orphan.role} {orphan.name}")
        return left
