"""Which version of each Deployment is in force: load, probe, swap, drain (hops 5 and 7).

Lives in the event loop. A change is an order; the newest order of a Deployment wins, and one loader
per Deployment works towards it, so that a burst of orders does not fill the memory. A request joins
the queue of the version that is in force when its body is there, and ends on it. A version that is
out of force is closed when its queue is empty.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from typing import Literal

import structlog

from windlass.serving.batching import BatchQueue
from windlass.serving.model import ModelError, OnnxModel, trim_memory
from windlass.serving.numbers import Requests, Runs
from windlass.serving.orders import Order
from windlass.serving.reading import Reader
from windlass.serving.writing import Labels

WHATEVER = "1"
"""The version that clients name who count versions: whichever is in force."""

Removal = Literal["gone", "draining", "absent"]
State = Literal["Progressing", "Live", "Failed"]

log = structlog.get_logger()


class WrongOwnerError(Exception):
    """The Deployment belongs to another object; nothing was changed."""


@dataclass(frozen=True)
class Failure:
    """The last change that could not be made."""

    digest: str
    message: str


@dataclass(frozen=True)
class Load:
    """How one load ended."""

    deployment: str
    digest: str
    result: Literal["ok", "failed", "superseded"]
    seconds: float


class Served:
    """A loaded version, and all that its requests need."""

    def __init__(self, name: str, order: Order, model: OnnxModel) -> None:
        self.order = order
        self.model = model
        self.queue = BatchQueue(model, order.options.batching, order.options.replicas)
        self.reader = Reader(model.signature)
        self.labels = Labels(name, order.version)
        self.runs = Runs()

    def last_answer_ms(self) -> int:
        """When the last request was answered, in milliseconds since 1970; 0 for never."""
        if not self.runs.last:
            return 0
        return round((time.time() - (time.perf_counter() - self.runs.last)) * 1000)


class Deployment:
    """One name that clients call."""

    def __init__(self, name: str, order: Order) -> None:
        self.name = name
        self.owner = order
        """The newest order, for who and what; its digest may not be in force."""
        self.pending: Order | None = None
        self.served: Served | None = None
        self.failure: Failure | None = None
        self.loading = False
        self.settled = asyncio.Event()
        """Set when a loader ends."""
        self.requests = Requests()

    @property
    def state(self) -> State:
        """Progressing while a change is under way, also when an old version serves meanwhile."""
        if self.pending is not None:
            return "Progressing"
        return "Live" if self.served is not None else "Failed"

    def choose(self, version: str | None) -> Served | None:
        """The version that answers a request; None when there is none, or not the one asked for."""
        served = self.served
        if served is None or version in (None, WHATEVER, served.order.version):
            return served
        return None

    def versions(self) -> list[Served]:
        """What is loaded and answers."""
        return [self.served] if self.served is not None else []

    def view(self) -> dict[str, object]:
        """What the admin API shows."""
        served, failure = self.served, self.failure
        reason = None
        if failure is not None:
            reason = "UpdateFailed" if served is not None else "InvalidArtifact"
        return {
            "name": self.name,
            "install": self.owner.install,
            "uid": self.owner.uid,
            "key": self.owner.key,
            "state": self.state,
            "digest": served.order.digest if served is not None else None,
            "pending_digest": self.pending.digest if self.pending is not None else None,
            "failed_digest": failure.digest if failure is not None else None,
            "reason": reason,
            "message": failure.message if failure is not None else "",
            "signature": served.model.signature.document() if served is not None else None,
            "requests": {"ok": self.requests.ok, "error": self.requests.errors},
        }


class Deployments:
    """All Deployments of the process. They load in ``tasks``, on the threads of ``loads``."""

    def __init__(
        self, tasks: asyncio.TaskGroup, loads: Executor, on_load: Callable[[Load], None]
    ) -> None:
        self._tasks = tasks
        self._loads = loads
        self._on_load = on_load
        self._by_name: dict[str, Deployment] = {}
        self._leaving: set[Deployment] = set()
        self._running: set[asyncio.Task[None]] = set()

    def get(self, name: str) -> Deployment | None:
        """The Deployment of that name, or None."""
        return self._by_name.get(name)

    def all(self) -> list[Deployment]:
        """Every Deployment that is not being removed, by name."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    def put(self, name: str, order: Order) -> Deployment:
        """Make the order the one to reach, and return at once.

        What is in force or being loaded already is not loaded again; what failed before is.
        Raises WrongOwnerError when the name belongs to another uid.
        """
        deployment = self._by_name.get(name)
        if deployment is None:
            deployment = self._by_name[name] = Deployment(name, order)
        self._check_owner(deployment, order.uid)
        deployment.owner = order
        if deployment.pending is not None and deployment.pending.digest == order.digest:
            return deployment
        deployment.failure = None
        served = deployment.served
        if served is not None and served.order.digest == order.digest:
            deployment.pending = None
            return deployment
        deployment.pending = order
        if not deployment.loading:
            deployment.loading = True
            self._start(self._converge(deployment))
        return deployment

    def delete(self, name: str, uid: str) -> Removal:
        """Take the name away at once and let its requests end. Raises WrongOwnerError."""
        deployment = self._by_name.get(name)
        if deployment is None or deployment.owner.uid != uid:
            if any((each.name, each.owner.uid) == (name, uid) for each in self._leaving):
                return "draining"
            if deployment is None:
                return "absent"
        self._check_owner(deployment, uid)
        del self._by_name[name]
        deployment.pending = None
        log.info("deployment removed", deployment=name, uid=uid)
        served, deployment.served = deployment.served, None
        idle = not deployment.loading and (served is None or not served.queue.busy)
        if not idle:
            self._leaving.add(deployment)
        self._start(self._leave(deployment, served))
        return "gone" if idle else "draining"

    def cancel(self) -> None:
        """Wait for no load and no drain any more: the process ends."""
        for task in self._running:
            task.cancel()

    def _check_owner(self, deployment: Deployment, uid: str) -> None:
        if deployment.owner.uid != uid:
            raise WrongOwnerError(
                f"Deployment {deployment.name} belongs to uid {deployment.owner.uid}"
                f" ({deployment.owner.key}), not to {uid}; delete that one or use another name"
            )

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = self._tasks.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _converge(self, deployment: Deployment) -> None:
        """Load the newest order until there is none left."""
        try:
            while (order := deployment.pending) is not None:
                await self._change(deployment, order)
        finally:
            deployment.loading = False
            deployment.settled.set()

    async def _change(self, deployment: Deployment, order: Order) -> None:
        started = time.monotonic()
        loaded = await asyncio.get_running_loop().run_in_executor(self._loads, _load, order)
        load = Load(deployment.name, order.digest, "ok", time.monotonic() - started)
        if deployment.pending is not order:
            self._report(replace(load, result="superseded"))
            if isinstance(loaded, OnnxModel):
                await self._close(loaded)
            return
        deployment.pending = None
        if isinstance(loaded, Failure):
            deployment.failure = loaded
            self._report(replace(load, result="failed"), loaded.message)
            return
        old, deployment.served = deployment.served, Served(deployment.name, order, loaded)
        self._report(load)
        if old is not None:
            self._start(self._retire(old))

    async def _retire(self, served: Served) -> None:
        await served.queue.drained()
        served.queue.close()
        await self._close(served.model)

    async def _leave(self, deployment: Deployment, served: Served | None) -> None:
        if served is not None:
            await self._retire(served)
        if deployment.loading:
            deployment.settled.clear()
            await deployment.settled.wait()
        self._leaving.discard(deployment)

    async def _close(self, model: OnnxModel) -> None:
        await asyncio.get_running_loop().run_in_executor(self._loads, model.close)

    def _report(self, load: Load, message: str = "") -> None:
        log.info("load", **asdict(load), message=message)
        self._on_load(load)


def _load(order: Order) -> OnnxModel | Failure:
    """In a thread."""
    try:
        options = order.options
        rows = options.batching.max_rows
        return OnnxModel.load(order.model_path, options.threads, options.providers, rows)
    except ModelError as error:
        message = str(error)
    except Exception as error:
        log.exception("load", digest=order.digest)
        message = f"loading {order.model_path} failed in an unforeseen way: {error!r}"
    trim_memory()
    return Failure(order.digest, message)
