"""Which version of each Deployment is in force: load, probe, try, swap, drain (hops 5 and 7).

Lives in the event loop. A change is an order; the newest order of a Deployment wins, and one loader
per Deployment works towards it, so that a burst of orders does not fill the memory. A request joins
the queue of the version that is in force when its body is there, and ends on it. A version that is
out of force is closed when its queue is empty.

Once a second each Deployment is looked at: whether its trial has a verdict, how many replicas it
needs, and which models sleep, because nobody asks or because the memory is needed elsewhere. A
model that sleeps wakes up by a request, which waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from typing import Literal

import structlog

from windlass.serving.model import ModelError, OnnxModel, trim_memory
from windlass.serving.orders import Failure, Order, Removal, WrongOwnerError
from windlass.serving.rollout import Trial
from windlass.serving.served import Deployment, Served

_LOOK = 1.0
"""Seconds between two looks at everything."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Load:
    """How one load ended."""

    deployment: str
    digest: str
    result: Literal["ok", "failed", "superseded"]
    seconds: float


class Deployments:
    """All Deployments of the process. They load in ``tasks``, on the threads of ``loads``."""

    def __init__(
        self,
        tasks: asyncio.TaskGroup,
        loads: Executor,
        on_load: Callable[[Load], None],
        memory: int | None = None,
        *,
        led: bool = False,
    ) -> None:
        """``led``: somebody else judges and scales, who knows of other processes too."""
        self._tasks = tasks
        self._loads = loads
        self._on_load = on_load
        self._memory = memory
        self._led = led
        self._by_name: dict[str, Deployment] = {}
        self._leaving: set[Deployment] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._looking = False

    async def views(self) -> list[dict[str, object]]:
        """Every Deployment, for the admin socket."""
        return [each.view() for each in self.all()]

    def order(self, name: str, order: Order) -> dict[str, object]:
        """``put``, for the admin socket."""
        return self.put(name, order).view()

    async def remove(self, name: str, uid: str) -> Removal:
        """``delete``, for the admin socket."""
        return self.delete(name, uid)

    def get(self, name: str) -> Deployment | None:
        """The Deployment of that name, or None."""
        return self._by_name.get(name)

    def all(self) -> list[Deployment]:
        """Every Deployment that is not being removed, by name."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    def unused(self) -> float:
        """Seconds since the last answer of any of them; 0 while requests are under way."""
        versions = [version for each in self._by_name.values() for version in each.versions()]
        if any(version.queue.busy for version in versions):
            return 0.0
        last = max((version.last_used for version in versions), default=0.0)
        return time.perf_counter() - last

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
        deployment.pending = None
        candidate = deployment.candidate
        if candidate is not None and candidate.order.digest == order.digest:
            return deployment
        self._end_trial(deployment)
        served = deployment.served
        if served is not None and served.order.digest == order.digest:
            return deployment
        if served is not None and order.needs_no_other_model_than(served.order):
            log.info("options changed", deployment=name, digest=order.digest)
            served.adopt(name, order)
            return deployment
        deployment.pending = order
        if not deployment.loading:
            deployment.loading = True
            self._start(self._converge(deployment))
        if not self._looking:
            self._looking = True
            self._start(self._look_on())
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
        self._end_trial(deployment)
        served, deployment.served = deployment.served, None
        idle = not deployment.loading and (served is None or not served.queue.busy)
        if not idle:
            self._leaving.add(deployment)
        self._start(self._leave(deployment, served))
        return "gone" if idle else "draining"

    def settle(self, name: str, digest: str, *, take_over: bool) -> None:
        """What is to become of the version that waits beside the one in force."""
        deployment = self._by_name.get(name)
        candidate = deployment.candidate if deployment is not None else None
        if deployment is None or candidate is None or candidate.order.digest != digest:
            return
        if take_over:
            self._promote(deployment, candidate)
        else:
            self._end_trial(deployment)

    def set_lanes(self, name: str, number: int) -> None:
        """Let so many runs of a model go on at once; none lets it sleep."""
        deployment = self._by_name.get(name)
        for served in deployment.versions() if deployment is not None else ():
            if number == 0:
                self._start(self._doze(served))
            else:
                served.queue.lanes = number

    def cancel(self) -> None:
        """Wait for no load and no drain any more: the process ends."""
        for task in self._running:
            task.cancel()

    def look(self) -> None:
        """Judge trials, set replicas, send to sleep who is not needed. Called once a second."""
        now = time.monotonic()
        for deployment in self.all():
            for served in deployment.versions():
                served.queue.give_up_hung()
            if not self._led:
                self._judge(deployment, now)
                self._scale(deployment)
        self._save_memory()

    def _check_owner(self, deployment: Deployment, uid: str) -> None:
        if deployment.owner.uid != uid:
            raise WrongOwnerError(deployment.name, deployment.owner, uid)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = self._tasks.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            try:
                self.look()
            except Exception:  # requests must go on whatever is wrong with a look
                log.exception("look")

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
        served = Served(deployment.name, order, loaded)
        served.queue.wake = lambda: self._start(self._wake(served))
        self._report(load)
        old, rollout = deployment.served, order.options.rollout
        if old is None or (rollout is None and not self._led):
            self._promote(deployment, served)
            return
        deployment.candidate = served
        if rollout is not None:
            deployment.trial = Trial(rollout, old.runs, time.monotonic())

    def _promote(self, deployment: Deployment, served: Served) -> None:
        old, deployment.served = deployment.served, served
        deployment.candidate = deployment.trial = None
        if old is not None:
            served.queue.succeed(old.queue)
            if served.order.options.autoscaling is not None:
                served.queue.lanes = max(old.queue.lanes, 1)
            self._start(self._retire(old))

    def _judge(self, deployment: Deployment, now: float) -> None:
        trial, candidate, served = deployment.trial, deployment.candidate, deployment.served
        if trial is None or candidate is None or served is None:
            return
        verdict = trial.verdict(served.runs, candidate.runs, now)
        if verdict is None:
            return
        order = candidate.order
        log.info("verdict", deployment=deployment.name, digest=order.digest, verdict=verdict)
        if verdict is True:
            self._promote(deployment, candidate)
        else:
            deployment.failure = Failure(order.digest, f"{verdict}; the old version serves on")
            self._end_trial(deployment)

    def _end_trial(self, deployment: Deployment) -> None:
        candidate, deployment.candidate, deployment.trial = deployment.candidate, None, None
        if candidate is not None:
            self._start(self._retire(candidate))

    def _scale(self, deployment: Deployment) -> None:
        wanted, served = deployment.scale(), deployment.served
        if served is None or wanted is None or served.queue.asleep:
            return
        if wanted == 0:
            self._start(self._doze(served))
        elif wanted != served.queue.lanes:
            log.info("replicas", deployment=deployment.name, now=wanted, was=served.queue.lanes)
            served.queue.lanes = wanted

    def _save_memory(self) -> None:
        """Over the budget, those who were not asked for longest sleep."""
        if self._memory is None:
            return
        awake = [s for d in self.all() for s in d.versions() if not s.queue.asleep]
        used = sum(served.model.size for served in awake)
        for served in sorted(awake, key=lambda each: each.last_used)[:-1]:
            if used <= self._memory:
                return
            if not served.queue.busy:
                used -= served.model.size
                self._start(self._doze(served))

    async def _doze(self, served: Served) -> None:
        """Give the memory back; the next request wakes the model up."""
        async with served.moving:
            if served.queue.busy or served.queue.asleep:
                return
            served.queue.asleep = True
            served.queue.close()
            log.info("asleep", model=served.labels.model)
            await self._close(served.model)

    async def _wake(self, served: Served) -> None:
        async with served.moving:
            if not served.queue.asleep:
                return
            loop = asyncio.get_running_loop()
            loaded = await loop.run_in_executor(self._loads, _load, served.order)
            if isinstance(loaded, Failure):
                served.queue.refuse_all(503, f"it could not be loaded again: {loaded.message}")
                return
            log.info("awake", model=served.labels.model)
            served.model = loaded
            served.queue.awaken(loaded)

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
        return OnnxModel.load(order.model_path, order.options)
    except ModelError as error:
        message = str(error)
    except Exception as error:
        log.exception("load", digest=order.digest)
        message = f"loading {order.model_path} failed in an unforeseen way: {error!r}"
    trim_memory()
    return Failure(order.digest, message)
