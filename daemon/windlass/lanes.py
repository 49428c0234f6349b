"""Which target each key is on, so that one that hangs holds up only its own: hop 3."""

from __future__ import annotations

from windlass.targets import Targets
from windlass_schemas import Key

DEFAULT_LANE_BOUND = 8
"""How many objects of a target that is not open yet may be worked on at once."""


class Lanes:
    """A key's lane, and how many of a lane may be worked on at once. Asked by the workqueue."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._lanes: dict[Key, str] = {}

    def put(self, key: Key, lane: str) -> None:
        """Take note of where an object is to run."""
        self._lanes[key] = lane

    def __call__(self, key: Key) -> tuple[str, int]:
        lane = self._lanes.get(key, "")
        capabilities = self._targets.capabilities(lane)
        return lane, capabilities.max_concurrent if capabilities else DEFAULT_LANE_BOUND
