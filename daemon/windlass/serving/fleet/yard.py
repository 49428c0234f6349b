"""The workers themselves: as many as are wanted, started, found, replaced and retired."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog

from windlass.serving.fleet.worker import Worker, last_words
from windlass.serving.process import STOP_GRACE, Folder
from windlass.serving.snapshot import Snapshot

Close = Callable[[str, Snapshot | None], None]
"""Told the name of a worker that has ended, and what it had counted, before its folder goes."""
_START = 60.0
"""Seconds that a new worker has for its first answer."""
_STEADY = 30.0
"""A worker that has lived as long did not die of its start."""
_LONGEST_PAUSE = 30.0
"""Seconds between two starts of workers that die of it, at most."""
_TOLD = 600.0
"""Seconds for which a Deployment's condition tells of a worker that was lost."""

log = structlog.get_logger()


class Start(NamedTuple):
    """How a worker is started."""

    arguments: Sequence[str]
    version: str
    sockets: Sequence[int]


class Yard:
    """All workers in one folder."""

    def __init__(self, folder: Path, start: Start, most: int, hung: float) -> None:
        """``most`` workers; one that does not answer for ``hung`` seconds is replaced."""
        self._folder = folder
        self._how = start
        self._most = most
        self._hung = hung
        self.workers: list[Worker] = []
        self.serving = 1
        """How many are wanted."""
        self.lost = 0
        """Workers that ended without being asked."""
        self._told = ""
        self._lost_at = 0.0
        self._deaths = 0
        """At the start, one after the other."""
        self._next = 0.0
        self._last_name = 0

    def find(self, close: Close) -> None:
        """Take over the workers that another supervisor has left behind."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for folder in sorted(self._folder.iterdir()):
            self._last_name = max(self._last_name, int(folder.name))
            worker = Worker.find(folder, *self._how[:2]) if Folder(folder).is_held else None
            if worker is not None:
                log.info("found", worker=worker.name, pid=worker.pid)
                self.workers.append(worker)
            else:
                close(folder.name, last_words(folder))
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def changing(self) -> bool:
        """Whether a worker comes or goes."""
        return any(each.retiring or not each.open for each in self.workers)

    def note(self) -> str:
        """What to tell of workers that were lost lately."""
        if not self.lost or time.monotonic() - self._lost_at > _TOLD:
            return ""
        serving = sum(worker.open for worker in self.workers)
        return f"{self._told}; {serving} of {self.serving} processes serve, {self.lost} were lost"

    def numbers(self) -> Mapping[str, Snapshot]:
        """The counts of each, as last reported."""
        return {w.name: w.report.numbers for w in self.workers if w.report is not None}

    async def look(self) -> None:
        """Ask all how they stand."""
        await asyncio.gather(*(worker.look() for worker in self.workers))

    async def tend(self, wanted: int, close: Close) -> None:
        """Bury who has ended, end who hangs, and have as many as are wanted."""
        for worker in list(self.workers):
            if worker.ended:
                await self._bury(worker, close)
            else:
                self._end_if_hung(worker)
        self.serving = max(1, min(self._most, wanted))
        staying = [worker for worker in self.workers if not (worker.retiring or worker.stale)]
        for _ in range(self.serving - len(staying)):
            self._start()
        if len(staying) >= self.serving and all(worker.open for worker in staying):
            stale = [each for each in self.workers if each.stale and not each.retiring]
            for worker in (*staying[self.serving :], *stale):
                log.info("retiring", worker=worker.name, pid=worker.pid)
                await worker.retire()

    async def stop(self, close: Close) -> None:
        """Have all finish and end; who does not is killed."""
        for worker in self.workers:
            worker.retiring = True
            worker.send(signal.SIGTERM)
        end = time.monotonic() + STOP_GRACE + 5.0
        while not all(each.ended for each in self.workers) and time.monotonic() < end:  # noqa: ASYNC110 - they end by themselves
            await asyncio.sleep(0.02)
        for worker in list(self.workers):
            worker.send(signal.SIGKILL)
            await self._bury(worker, close)

    def _start(self) -> None:
        if time.monotonic() < self._next:
            return
        self._last_name += 1
        worker = Worker.start(self._folder / str(self._last_name), *self._how)
        log.info("started", worker=worker.name, pid=worker.pid)
        self.workers.append(worker)

    async def _bury(self, worker: Worker, close: Close) -> None:
        self.workers.remove(worker)
        close(worker.name, worker.last_words())
        if not worker.retiring:
            self._note_loss(worker)
        await worker.close()

    def _note_loss(self, worker: Worker) -> None:
        self.lost += 1
        self._lost_at = time.monotonic()
        self._told = worker.how_it_ended()
        log.error("worker lost", worker=worker.name, pid=worker.pid, how=self._told)
        lived = self._lost_at - worker.begun
        self._deaths = 0 if lived > _STEADY else self._deaths + 1
        pause = min(2.0 ** (self._deaths - 2), _LONGEST_PAUSE) if self._deaths > 1 else 0.0
        self._next = self._lost_at + pause

    def _end_if_hung(self, worker: Worker) -> None:
        bound = self._hung if worker.report is not None else max(_START, self._hung)
        silent = time.monotonic() - worker.heard
        if silent > bound:
            log.error("worker hangs", worker=worker.name, pid=worker.pid, seconds=round(silent))
            worker.send(signal.SIGKILL)
