"""One Deployment as the fleet knows it, and what a worker lacks of it. Pure.

A worker is compared with the record again and again, and given one thing at a time: a call that was
lost is made good at the next look, and a worker that has just started gets there by the same steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from windlass.serving.fleet.words import Stand
from windlass.serving.orders import Failure, Order
from windlass.serving.rollout import Trial
from windlass.serving.scaling import Load, Scaler
from windlass.serving.snapshot import DeploymentNumbers

Sent = tuple[str, int]
"""What a worker was last sent of a Deployment: the digest, and which attempt at it."""


@dataclass(frozen=True)
class Put:
    """Send the order."""

    order: Order


@dataclass(frozen=True)
class Settle:
    """Say what is to become of the version that waits."""

    digest: str
    take_over: bool


@dataclass(frozen=True)
class Lanes:
    """Say how many runs may go on at once."""

    number: int


Step = Put | Settle | Lanes


@dataclass
class Record:
    """What is in force in all workers, and what is to come."""

    name: str
    order: Order
    """The newest."""
    in_force: Order | None = None
    coming: Order | None = None
    failure: Failure | None = None
    attempt: int = 0
    """Grows with each order: what failed before is tried again."""
    trial: Trial | None = None
    replicas: int = 1
    _scaler: Scaler | None = None
    _counted: tuple[int, int, float] = field(default=(0, 0, 0.0))

    def put(self, order: Order) -> None:
        """Make the order the one to reach."""
        self.order = order
        self.failure = None
        self.attempt += 1
        if self.in_force is not None and self.in_force.digest == order.digest:
            self.coming = self.trial = None
        elif self.coming is None or self.coming.digest != order.digest:
            self.coming, self.trial = order, None

    def take_over(self) -> None:
        """What was to come is in force now."""
        self.in_force, self.coming, self.trial = self.coming, None, None

    def give_up(self, message: str) -> None:
        """What was to come does not come."""
        assert self.coming is not None
        self.failure = Failure(self.coming.digest, message)
        self.coming = self.trial = None

    @property
    def versions(self) -> set[str]:
        """Those that a worker may have."""
        orders = (self.order, self.in_force, self.coming)
        return {each.version for each in orders if each is not None}

    def is_settled(self, stand: Stand | None, sent: Sent | None) -> bool:
        """Whether a worker has all that must be in force, or cannot have it."""
        if self.in_force is None:
            return True
        digest = self.in_force.digest
        if stand is None:
            return False
        return stand.served == digest or (
            stand.failed == digest and sent == (digest, self.attempt) and stand.pending is None
        )

    def has_coming(self, stand: Stand | None) -> bool:
        """Whether a worker has loaded what is to come."""
        digest = self.coming.digest if self.coming is not None else None
        return stand is not None and digest in (stand.served, stand.candidate)

    def step(self, stand: Stand | None, sent: Sent | None, lanes: int) -> Step | None:
        """What a worker lacks next."""
        in_force, coming = self.in_force, self.coming
        if in_force is not None and (stand is None or stand.served != in_force.digest):
            if stand is not None and stand.candidate == in_force.digest:
                return Settle(in_force.digest, take_over=True)
            return None if sent == (in_force.digest, self.attempt) else Put(in_force)
        if coming is not None:
            if not self.has_coming(stand):
                return None if sent == (coming.digest, self.attempt) else Put(coming)
        elif stand is not None and stand.candidate is not None:
            return Settle(stand.candidate, take_over=False)
        elif stand is not None and stand.pending is not None and in_force is not None:
            return Put(in_force)
        if stand is not None and stand.served is not None and _differ(stand, lanes):
            return Lanes(lanes)
        return None

    def scale(self, numbers: DeploymentNumbers) -> None:
        """Look at the last second, and set how many replicas there should be."""
        serving = self.in_force
        if serving is None:
            return
        policy = serving.options.autoscaling
        if policy is None:
            self._scaler, self.replicas = None, serving.options.replicas
            return
        if self._scaler is None or self._scaler.policy != policy:
            self._scaler = Scaler(policy, serving.options.replicas)
        busy = sum(each.busy for each in numbers.versions.values())
        requests, before = numbers.requests, self._counted
        came, seconds = requests.total + busy, requests.duration.seconds
        self._counted = came, requests.total, seconds
        load = Load(
            max(came - before[0], 0), busy, max(requests.total - before[1], 0), seconds - before[2]
        )
        self.replicas = self._scaler.decide(load)

    def view(
        self, stands: Sequence[Stand], numbers: DeploymentNumbers, note: str, lost: int
    ) -> Mapping[str, object]:
        """What the admin socket shows; ``stands`` are those of the open workers."""
        in_force, failure, order = self.in_force, self.failure, self.order
        serving = [
            each for each in stands if in_force and in_force.digest in (each.served, each.candidate)
        ]
        reason = None
        if failure is not None:
            reason = "UpdateFailed" if in_force is not None else "InvalidArtifact"
        elif in_force is not None and not serving:
            reason = "BackendUnavailable"
        return {
            "name": self.name,
            "install": order.install,
            "uid": order.uid,
            "key": order.key,
            "state": self._state(stands, bool(serving)),
            "digest": in_force.digest if in_force is not None else None,
            "pending_digest": self.coming.digest if self.coming is not None else None,
            "failed_digest": failure.digest if failure is not None else None,
            "reason": reason,
            "message": self._message(numbers) or note,
            "signature": serving[0].signature if serving else None,
            "requests": {"ok": numbers.requests.ok, "error": numbers.requests.errors},
            "replicas": 0 if all(each.asleep for each in serving) else self.replicas,
            "hung": sum(each.hung for each in stands),
            "lost": lost,
        }

    def is_moving(self, stands: Sequence[Stand]) -> bool:
        """Whether a change is not in force in all workers yet, or not taken back in all."""
        return self.coming is not None or any(each.candidate is not None for each in stands)

    def _state(self, stands: Sequence[Stand], serving: bool) -> str:
        if self.is_moving(stands):
            return "Progressing"
        if self.in_force is None:
            return "Failed"
        return "Live" if serving else "Degraded"

    def _message(self, numbers: DeploymentNumbers) -> str:
        if self.failure is not None:
            return self.failure.message
        if self.coming is None or self.trial is None:
            return ""
        version = numbers.versions.get(self.coming.version)
        return self.trial.told(self.coming.version, version.runs) if version is not None else ""


def _differ(stand: Stand, lanes: int) -> bool:
    """Whether the number of lanes must be said. Who sleeps is woken by a request alone."""
    if lanes == 0:
        return not stand.asleep
    return stand.lanes != lanes
