"""A loaded version and a Deployment's versions: the nouns that ``deployments`` moves about."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Literal

from windlass.serving.batching import BatchQueue
from windlass.serving.model import OnnxModel
from windlass.serving.numbers import Requests, Runs
from windlass.serving.orders import Failure, Order
from windlass.serving.reading import Reader
from windlass.serving.rollout import Trial
from windlass.serving.scaling import Load as LoadNow
from windlass.serving.scaling import Scaler
from windlass.serving.snapshot import DeploymentNumbers, VersionNumbers
from windlass.serving.writing import Labels

WHATEVER = "1"
"""The version that clients name who count versions: whichever is in force."""

State = Literal["Progressing", "Live", "Failed"]


class Served:
    """A loaded version, and all that its requests need."""

    def __init__(self, name: str, order: Order, model: OnnxModel) -> None:
        self.order = order
        self.guarded = order.options.access == "keys"
        self.model = model
        self.queue = BatchQueue(model, order.options.batching, order.options.replicas)
        self.reader = Reader(model.signature)
        self.labels = Labels(name, order.version)
        self.runs = Runs()
        self.born = time.perf_counter()
        self.moving = asyncio.Lock()
        """Held while the model goes to sleep or wakes up."""

    def adopt(self, name: str, order: Order) -> None:
        """Follow a new order that needs no other model."""
        self.order = order
        self.guarded = order.options.access == "keys"
        self.labels = Labels(name, order.version)
        if order.options.autoscaling is None:
            self.queue.lanes = order.options.replicas

    @property
    def last_used(self) -> float:
        """By ``time.perf_counter``."""
        return self.runs.last or self.born

    def numbers(self) -> VersionNumbers:
        """What was counted, and how it stands."""
        queue = self.queue
        batches = {rows: [count, seconds] for rows, (count, seconds) in queue.batches.items()}
        return VersionNumbers(
            runs=self.runs,
            executions=queue.executions,
            batches=batches,
            pending=len(queue.waiting),
            busy=queue.busy,
            lanes=0 if queue.asleep else queue.lanes,
        )


class Deployment:
    """One name that clients call."""

    def __init__(self, name: str, order: Order) -> None:
        self.name = name
        self.owner = order
        """The newest order, for who and what; its digest may not be in force."""
        self.pending: Order | None = None
        self.served: Served | None = None
        self.candidate: Served | None = None
        """A version that is tried beside the one in force."""
        self.trial: Trial | None = None
        """How it does."""
        self.failure: Failure | None = None
        self.loading = False
        self.settled = asyncio.Event()
        """Set when a loader ends."""
        self.requests = Requests()
        self._scaler: Scaler | None = None
        self._counted = (0, 0, 0.0)

    @property
    def state(self) -> State:
        """Progressing while a change is under way, also when an old version serves meanwhile."""
        if self.pending is not None or self.candidate is not None:
            return "Progressing"
        return "Live" if self.served is not None else "Failed"

    def choose(self, version: str | None) -> Served | None:
        """The version that answers a request; None when there is none, or not the one asked for."""
        served, candidate = self.served, self.candidate
        if version is None and candidate is None:
            return served
        if candidate is not None:
            if version == candidate.order.version:
                return candidate
            trial = self.trial
            drawn = trial is not None and trial.rollout.way == "canary" and version is None
            if drawn and trial is not None and random.random() * 100 < trial.rollout.weight:
                return candidate
        if served is None or version in (None, WHATEVER, served.order.version):
            return served
        return None

    def versions(self) -> list[Served]:
        """What is loaded and answers."""
        return [each for each in (self.served, self.candidate) if each is not None]

    def numbers(self) -> DeploymentNumbers:
        """What was counted, over all versions and by version."""
        versions = {each.order.version: each.numbers() for each in self.versions()}
        if self.candidate is not None and self.trial is not None:
            versions[self.candidate.order.version].mismatches = self.trial.mismatches
        return DeploymentNumbers(self.requests, versions)

    def scale(self) -> int | None:
        """Look at the last second; how many replicas there should be. None without a served model.

        Called once a second.
        """
        served = self.served
        if served is None:
            return None
        policy = served.order.options.autoscaling
        if policy is None:
            self._scaler = None
            return served.order.options.replicas
        if self._scaler is None or self._scaler.policy != policy:
            self._scaler = Scaler(policy, served.queue.lanes)
        before = self._counted
        requests, busy = self.requests, sum(each.queue.busy for each in self.versions())
        came, seconds = requests.total + busy, requests.duration.seconds
        self._counted = came, requests.total, seconds
        return self._scaler.decide(
            LoadNow(came - before[0], busy, requests.total - before[1], seconds - before[2])
        )

    def view(self) -> dict[str, object]:
        """What the admin API shows."""
        served, failure, candidate = self.served, self.failure, self.candidate
        reason = None
        if failure is not None:
            reason = "UpdateFailed" if served is not None else "InvalidArtifact"
        coming = self.pending or (candidate.order if candidate is not None else None)
        return {
            "name": self.name,
            "install": self.owner.install,
            "uid": self.owner.uid,
            "key": self.owner.key,
            "state": self.state,
            "digest": served.order.digest if served is not None else None,
            "pending_digest": coming.digest if coming is not None else None,
            "failed_digest": failure.digest if failure is not None else None,
            "reason": reason,
            "message": self._message(),
            "signature": served.model.signature.document() if served is not None else None,
            "requests": {"ok": self.requests.ok, "error": self.requests.errors},
            "replicas": self._replicas(),
            "hung": served.queue.hung if served is not None else 0,
        }

    def _replicas(self) -> int:
        served = self.served
        return 0 if served is None or served.queue.asleep else served.queue.lanes

    def _message(self) -> str:
        if self.failure is not None:
            return self.failure.message
        if self.candidate is not None and self.trial is not None:
            return self.trial.told(self.candidate.order.version, self.candidate.runs)
        hung = self.served.queue.hung if self.served is not None else 0
        return f"{hung} replicas hung and were replaced" if hung else ""
