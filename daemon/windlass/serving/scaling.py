"""How many replicas a load needs, and when to follow it; pure, no clock of its own.

Outside the eight hops. The need is looked at once a second over the last ten. Replicas are added
when the need has been above them for ``up`` seconds, and taken away when it has been below for
``down``.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal, NamedTuple

Metric = Literal["requestsPerSecond", "concurrency", "latency"]
WINDOW = 10
"""Looks, one a second, over which a load is averaged."""
_SLACK = 0.02
"""Share of a replica that is no reason for another: counting over a window is not exact."""


@dataclass(frozen=True)
class Autoscaling:
    """What the spec says."""

    min: int
    max: int
    metric: Metric
    target: float
    up: float = 0.0
    """Seconds."""
    down: float = 60.0
    """Seconds."""


class Load(NamedTuple):
    """What one second brought."""

    requests: int
    """That came."""
    at_once: int
    """That wait or run now."""
    answers: int
    seconds: float
    """Of all the answers together."""


class Scaler:
    """Decides for one Deployment; asked once a second."""

    def __init__(self, policy: Autoscaling, replicas: int) -> None:
        self.policy = policy
        self._loads: deque[Load] = deque(maxlen=WINDOW)
        self._needs: deque[int] = deque(maxlen=max(round(policy.down), round(policy.up), 1))
        self.replicas = max(policy.min, min(policy.max, replicas))

    def decide(self, load: Load) -> int:
        """Note one second and say how many replicas there should be now."""
        self._loads.append(load)
        policy = self.policy
        self._needs.append(max(policy.min, min(policy.max, self._need())))
        up = self._lately(policy.up)
        if len(up) >= policy.up and min(up) > self.replicas:
            self.replicas = min(up)
        down = self._lately(policy.down)
        if len(down) >= policy.down and max(down) < self.replicas:
            self.replicas = max(down)
        return self.replicas

    def _lately(self, seconds: float) -> list[int]:
        number = max(round(seconds), 1)
        return list(self._needs)[-number:]

    def _need(self) -> int:
        loads, target = self._loads, self.policy.target
        if self.policy.metric == "requestsPerSecond":
            value = sum(load.requests for load in loads) / WINDOW
        elif self.policy.metric == "concurrency":
            value = sum(load.at_once for load in loads) / WINDOW
        else:
            answers = sum(load.answers for load in loads)
            mean = sum(load.seconds for load in loads) / answers * 1000 if answers else 0.0
            value = mean * max(self.replicas, 1)
        if value <= 0:
            return 0 if not any(load.at_once for load in loads) else 1
        return max(1, math.ceil(value / target - _SLACK))
