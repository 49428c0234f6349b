"""What targets tell of changes: hints that make keys due, hop 3.

Some adapters see by one question what has become of all their runs. They tell whose have changed,
and those alone are looked at at once; the others are asked for as seldom as a lost hint may cost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import structlog

from windlass.metrics import ReconcileMetrics
from windlass.targets import OpenTarget, Targets
from windlass_adapters.base import TellsChanges
from windlass_schemas import Key

AGAIN = 5.0
"""Seconds until an adapter is listened to again that broke off."""

_log = structlog.get_logger("windlass.hearing")


class Hearing:
    """Listens to every open target that tells of changes, one task for each."""

    def __init__(
        self,
        targets: Targets,
        told: Callable[[Sequence[Key]], Awaitable[None]],
        metrics: ReconcileMetrics,
    ) -> None:
        self._targets = targets
        self._told = told
        self._metrics = metrics

    async def run(self) -> None:
        """Listen, for ever. A target that is opened anew is another one."""
        listening: dict[OpenTarget, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._targets.moved.clear()
                telling = self._targets.telling()
                for target in listening.keys() - telling.keys():
                    listening.pop(target).cancel()
                for target in telling.keys() - listening.keys():
                    listening[target] = group.create_task(self._listen(target, telling[target]))
                await self._targets.moved.wait()

    async def _listen(self, target: OpenTarget, adapter: TellsChanges) -> None:
        while True:
            try:
                keys = await adapter.changed()
            except Exception as error:  # whatever it is costs hints of this target only
                _log.warning("target tells no changes", target=target.id, error=str(error))
                await asyncio.sleep(AGAIN)
                continue
            self._metrics.hints.labels(target.id).inc(len(keys))
            await self._told(list(keys))
