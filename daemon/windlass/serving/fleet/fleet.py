"""What is deployed and how many workers serve it: the truth, held against the workers each second.

One loop looks at everything: it asks each worker how it stands, replaces who ended or hangs, gives
each what it lacks, and decides what all must agree on: when a new version is in force, whether it
does well enough, how many replicas there are. A version is in force when every worker has loaded
it; only then are they told to put it in its place, all at the same moment.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from windlass.serving.fleet.books import Books
from windlass.serving.fleet.records import Record
from windlass.serving.fleet.words import Stand
from windlass.serving.fleet.worker import Worker
from windlass.serving.fleet.yard import Yard
from windlass.serving.orders import Order, Removal, WrongOwnerError, parse_order
from windlass.serving.rollout import Trial
from windlass.serving.snapshot import DeploymentNumbers, Snapshot

_LOOK = 1.0
"""Seconds between two looks at everything."""
_HURRY = 0.05
"""The same, while something changes."""

log = structlog.get_logger()


class Fleet:
    """All workers of a Target, and the records of what they serve."""

    def __init__(self, folder: Path, yard: Yard) -> None:
        self._file = folder / "orders.json"
        self._yard = yard
        self._books = Books(folder / "usage.json")
        self._records: dict[str, Record] = {}
        self._leaving: dict[tuple[str, str], float] = {}
        """Name and uid of what was removed while requests were under way, and since when."""
        self._numbers = Snapshot()
        self._hurry = asyncio.Event()
        self._seconds = 0.0
        self.ready = asyncio.Event()
        """Set when a worker takes connections."""
        yard.find(self._close)
        self._books.close_others({worker.name for worker in yard.workers})
        self.write()
        self._restore()

    # What the admin socket calls

    async def views(self) -> Sequence[Mapping[str, object]]:
        """Every Deployment, as it stands in all workers together."""
        return [self._view(self._records[name]) for name in sorted(self._records)]

    def order(self, name: str, order: Order) -> Mapping[str, object]:
        """Make the order the one to reach, and return at once. Raises WrongOwnerError."""
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = Record(name, order)
        elif record.order.uid != order.uid:
            raise WrongOwnerError(name, record.order, order.uid)
        record.put(order)
        self._keep()
        self._hurry.set()
        return self._view(record)

    async def remove(self, name: str, uid: str) -> Removal:
        """Take the name away from all workers. Raises WrongOwnerError."""
        record = self._records.get(name)
        if record is not None and record.order.uid != uid:
            raise WrongOwnerError(name, record.order, uid)
        if record is None and (name, uid) not in self._leaving:
            return "absent"
        if record is not None:
            del self._records[name]
            self._keep()
            self._forget()
            log.info("deployment removed", deployment=name, uid=uid)
        asked = [worker.remove(name, uid) for worker in self._yard.workers]
        if any(await asyncio.gather(*asked)):
            self._leaving[name, uid] = time.monotonic()
            return "draining"
        self._leaving.pop((name, uid), None)
        return "gone"

    async def numbers(self) -> Snapshot:
        """What all workers have counted until now."""
        await self._yard.look()
        return self._summed()

    @property
    def empty(self) -> bool:
        """Whether nothing is deployed."""
        return not self._records

    # The loop

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                await self._round()
            except Exception:  # the next look may go better, and workers serve meanwhile
                log.exception("look at the workers")
            changing = any(e.is_moving(self._stands(e.name)) for e in self._records.values())
            pause = _HURRY if changing or self._yard.changing else _LOOK
            if self._hurry.is_set():
                pause = 0.0
            self._hurry.clear()
            try:
                await asyncio.wait_for(self._hurry.wait(), pause or 0.001)
            except TimeoutError:
                continue

    def write(self) -> None:
        """Keep the usage."""
        self._books.write(self._yard.numbers())

    async def stop(self) -> None:
        """Have all workers finish and end."""
        await self._yard.stop(self._close)
        self.write()

    async def _round(self) -> None:
        wanted = max((each.replicas for each in self._records.values()), default=1)
        await self._yard.tend(wanted, self._close)
        await self._yard.look()
        self._forget()
        self._numbers = self._summed()
        self._decide()
        await asyncio.gather(*map(self._give, self._yard.workers))
        await self._open()
        if any(worker.open for worker in self._yard.workers):
            self.ready.set()
        if time.monotonic() - self._seconds >= _LOOK:
            self._seconds = time.monotonic()
            self._scale()

    def _decide(self) -> None:
        """What all workers must agree on."""
        workers = [worker for worker in self._yard.workers if worker.open]
        for record in self._records.values():
            coming = record.coming
            if coming is None or not workers:
                continue
            failed = [
                stand.message
                for worker in workers
                if (stand := _stand(worker, record.name)) is not None
                and stand.failed == coming.digest
                and worker.sent.get(record.name) == (coming.digest, record.attempt)
            ]
            if failed:
                log.info("refused", deployment=record.name, digest=coming.digest)
                record.give_up(failed[0])
                self._keep()
            elif all(record.has_coming(_stand(worker, record.name)) for worker in workers):
                self._try_out(record, coming)

    def _try_out(self, record: Record, coming: Order) -> None:
        """Every worker has it: put it in force, or see how it does first."""
        rollout, in_force = coming.options.rollout, record.in_force
        same = in_force is not None and in_force.version == coming.version
        if rollout is None or in_force is None or same:
            self._take_over(record)
            return
        numbers = self._of(record.name)
        old, new = numbers.versions.get(in_force.version), numbers.versions.get(coming.version)
        if old is None or new is None:
            return
        if record.trial is None:
            record.trial = Trial(rollout, old.runs, time.monotonic())
            return
        record.trial.mismatches = new.mismatches
        verdict = record.trial.verdict(old.runs, new.runs, time.monotonic())
        if verdict is None:
            return
        log.info("verdict", deployment=record.name, digest=coming.digest, verdict=verdict)
        if verdict is True:
            self._take_over(record)
        else:
            record.give_up(f"{verdict}; the old version serves on")
            self._keep()

    def _take_over(self, record: Record) -> None:
        record.take_over()
        assert record.in_force is not None
        self._keep()
        log.info("in force", deployment=record.name, digest=record.in_force.digest)

    async def _give(self, worker: Worker) -> None:
        """What it lacks, and away with what it has too much."""
        if worker.report is None or worker.retiring:
            return
        for name, stand in worker.report.stands.items():
            if name not in self._records:
                await worker.remove(name, stand.uid)
        for name, record in self._records.items():
            lanes = math.ceil(record.replicas / self._yard.serving)
            step = record.step(_stand(worker, name), worker.sent.get(name), lanes)
            if step is not None:
                await worker.follow(name, step, record.attempt)

    async def _open(self) -> None:
        """Let workers take connections that have everything that is in force."""
        for worker in self._yard.workers:
            if worker.report is None or worker.report.open or worker.retiring:
                continue
            if all(
                record.is_settled(_stand(worker, name), worker.sent.get(name))
                for name, record in self._records.items()
            ):
                await worker.begin()

    def _scale(self) -> None:
        for record in self._records.values():
            was = record.replicas
            record.scale(self._of(record.name))
            if record.replicas != was:
                log.info("replicas", deployment=record.name, now=record.replicas, was=was)
        now = time.monotonic()
        self._leaving = {key: at for key, at in self._leaving.items() if now - at < 60.0}

    # The rest

    def _close(self, worker: str, last: Snapshot | None) -> None:
        """Keep what a worker has counted, before its folder goes."""
        self._books.close(worker, last)
        self.write()

    def _forget(self) -> None:
        """Counts of workers that are gone, for what is not there any more."""
        self._books.keep({name: each.versions for name, each in self._records.items()})

    def _summed(self) -> Snapshot:
        return self._books.whole(self._yard.numbers())

    def _of(self, name: str) -> DeploymentNumbers:
        return self._numbers.deployments.get(name) or DeploymentNumbers()

    def _view(self, record: Record) -> Mapping[str, object]:
        numbers = self._of(record.name)
        return record.view(self._stands(record.name), numbers, self._yard.note(), self._yard.lost)

    def _stands(self, name: str) -> list[Stand]:
        """How it stands in the workers that take connections."""
        every = (_stand(worker, name) for worker in self._yard.workers if worker.open)
        return [each for each in every if each is not None]

    def _keep(self) -> None:
        """Write down what must be served, for a supervisor after this one."""

        def text(order: Order | None) -> str | None:
            return order.body.decode() if order is not None else None

        document = {
            name: [text(record.order), text(record.in_force), text(record.coming)]
            for name, record in self._records.items()
        }
        draft = self._file.with_suffix(".draft")
        try:
            draft.write_text(json.dumps(document))
            draft.replace(self._file)
        except OSError as error:
            log.warning("orders", message=f"cannot write {self._file}: {error.strerror}")

    def _restore(self) -> None:
        """What the supervisor before had in force, for workers that it has left behind."""
        if not self._yard.workers:
            self._file.unlink(missing_ok=True)
            return
        try:
            for name, texts in json.loads(self._file.read_text()).items():
                order, in_force, coming = (parse_order(t.encode()) if t else None for t in texts)
                assert order is not None
                self._records[name] = Record(name, order, in_force, coming)
        except (OSError, ValueError) as error:
            log.warning("orders", message=f"{self._file} cannot be read: {error}")


def _stand(worker: Worker, name: str) -> Stand | None:
    return worker.report.stands.get(name) if worker.report is not None else None
