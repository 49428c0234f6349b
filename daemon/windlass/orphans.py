"""Beside the eight hops: what backends still hold of ours though no object declares it any more.

Looked for once an hour on each open target that can tell, and whenever a person asks. What costs
money is reported, in the log and as a metric, and left alone until somebody names it; what costs
nothing and is used by nothing is removed.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from windlass.metrics import Metrics
from windlass.store.base import Object, StoreError
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


@dataclass(frozen=True)
class Report:
    """What was found."""

    left: tuple[tuple[str, Orphan], ...]
    """Target and orphan."""
    unasked: Mapping[str, str]
    """Targets that could not be asked, and why."""


class Open(Protocol):
    """What of the targets is needed here."""

    @abstractmethod
    def finding_orphans(self) -> Iterator[tuple[str, FindsOrphans]]:
        """Target and adapter of each open one that can tell."""


class Orphans:
    """Looks for them, and collects what is free."""

    def __init__(self, store: Objects, targets: Open, metrics: Metrics) -> None:
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
        """One look at every open target; (target, orphan) for what costs money there now."""
        try:
            report = await self.find()
        except StoreError:
            return ()
        for target, message in report.unasked.items():
            _log.warning("orphans cannot be looked for", target=target, message=message)
        for target, adapter in self._targets.finding_orphans():
            found = [orphan for at, orphan in report.left if at == target]
            if target not in report.unasked:
                self._metrics.orphans.labels(target).set(sum(not o.free for o in found))
            for orphan in found:
                await self._tell(target, adapter, orphan)
        return [(target, orphan) for target, orphan in report.left if not orphan.free]

    async def _tell(self, target: str, adapter: FindsOrphans, orphan: Orphan) -> None:
        external = f"{orphan.role} {orphan.name}"
        if not orphan.free:
            _log.warning(
                "nothing declares this any more; it costs money until somebody removes it",
                target=target,
                external=external,
                made_for=orphan.ref,
                cost=orphan.cost,
            )
            return
        try:
            async with asyncio.timeout(TIMEOUT):
                await adapter.collect(orphan)
        except (AdapterError, TimeoutError) as error:
            message = str(error)
            _log.warning("cannot be collected", target=target, external=external, message=message)
        else:
            _log.info("collected", target=target, external=external)

    async def find(self) -> Report:
        """What is left behind on each open target. Removes nothing. Raises StoreError."""
        living = [
            Owner(self._store.install, found.uid, found.key) for found in await self._store.list()
        ]
        left: list[tuple[str, Orphan]] = []
        unasked: dict[str, str] = {}
        for target, adapter in self._targets.finding_orphans():
            try:
                async with asyncio.timeout(TIMEOUT):
                    left += [(target, orphan) for orphan in await adapter.orphans(living)]
            except AdapterError as error:
                unasked[target] = str(error)
            except TimeoutError:
                unasked[target] = f"it did not answer within {TIMEOUT:g} s"
        return Report(tuple(left), unasked)

    async def remove(self, target: str, role: str, name: str) -> Orphan:
        """Remove the orphan of that name; it must be one now. Raises LookupError, AdapterError."""
        report = await self.find()
        for at, orphan in report.left:
            if (at, orphan.role, orphan.name) == (target, role, name):
                adapter = dict(self._targets.finding_orphans())[target]
                async with asyncio.timeout(TIMEOUT):
                    await adapter.remove(orphan)
                _log.info("removed on request", target=target, external=f"{role} {name}")
                return orphan
        raise LookupError(report.unasked.get(target, ""))
