"""What the counters of a process say at one moment, and of several processes together.

Outside the eight hops. Plain data that travels between the processes of one Target: the pages with
numbers are made from it, whether one process serves or several.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TypeVar, cast

from windlass.serving.numbers import LARGEST, PASSING, Requests, Runs

T = TypeVar("T")


@dataclass(slots=True)
class VersionNumbers:
    """One version of a model."""

    runs: Runs = field(default_factory=Runs)
    executions: int = 0
    batches: dict[int, list[float]] = field(default_factory=dict)
    """Number of runs and their seconds, by rows."""
    mismatches: int = 0
    """Answers of a shadow that differ from those given."""
    pending: int = field(default=0, metadata=PASSING)
    busy: int = field(default=0, metadata=PASSING)
    """Requests that wait or run."""
    lanes: int = field(default=0, metadata=PASSING)

    def last_answer_ms(self) -> int:
        """When the last request was answered, in milliseconds since 1970; 0 for never."""
        if not self.runs.last:
            return 0
        return round((time.time() - (time.perf_counter() - self.runs.last)) * 1000)


@dataclass(slots=True)
class DeploymentNumbers:
    """One Deployment."""

    requests: Requests = field(default_factory=Requests)
    versions: dict[str, VersionNumbers] = field(default_factory=dict)


@dataclass(slots=True)
class ProcessNumbers:
    """What the system says of the process."""

    cpu_seconds: float = 0.0
    resident: float = field(default=0.0, metadata=PASSING)
    virtual: float = field(default=0.0, metadata=PASSING)
    open_fds: float = field(default=0.0, metadata=PASSING)
    count: int = field(default=0, metadata=PASSING)
    max_fds: float = field(default=0.0, metadata=LARGEST)
    started: float = field(default=0.0, metadata=LARGEST)


@dataclass(slots=True)
class Snapshot:
    """Everything that is counted."""

    process: ProcessNumbers = field(default_factory=ProcessNumbers)
    under_way: int = field(default=0, metadata=PASSING)
    strangers: Requests = field(default_factory=Requests)
    """Requests for models that are not there."""
    deployments: dict[str, DeploymentNumbers] = field(default_factory=dict)
    loads: dict[str, dict[str, int]] = field(default_factory=dict)
    """By Deployment and result."""
    load_seconds: dict[str, float] = field(default_factory=dict)
    usage: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    """[answered, refused] by Deployment and key."""


def summed(one: T, other: T) -> T:
    """Two trees of counters as one: numbers add up, what only one has is kept."""
    return cast(T, _summed(one, other))


def _summed(one: object, other: object) -> object:
    if isinstance(one, dict) and isinstance(other, dict):
        both = {key: _summed(one[key], other[key]) for key in one if key in other}
        return {**one, **other, **both}
    if isinstance(one, list) and isinstance(other, list):
        return [_summed(a, b) for a, b in zip(one, other, strict=True)]
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one + other
    assert is_dataclass(one)
    assert not isinstance(one, type)
    values = {}
    for each in fields(one):
        mine, yours = getattr(one, each.name), getattr(other, each.name)
        largest = each.metadata == LARGEST
        values[each.name] = max(mine, yours) if largest else _summed(mine, yours)
    return type(one)(**values)


def remains(tree: T) -> T:
    """What is still true when the process has ended: counts are, states are not."""
    return cast(T, _remains(tree))


def _remains(tree: object) -> object:
    if isinstance(tree, dict):
        return {key: _remains(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return list(tree)
    if not is_dataclass(tree) or isinstance(tree, type):
        return tree
    values = {
        each.name: each.default if each.metadata == PASSING else _remains(getattr(tree, each.name))
        for each in fields(tree)
    }
    return type(tree)(**values)


def within(past: Snapshot, labels: Mapping[str, Collection[str]]) -> Snapshot:
    """The past of what is still there, by the versions of each Deployment."""
    deployments = {
        name: replace(
            each,
            versions={v: numbers for v, numbers in each.versions.items() if v in labels[name]},
        )
        for name, each in past.deployments.items()
        if name in labels
    }
    return replace(past, deployments=deployments)
