"""Whether a new version does well enough to take over; pure, no clock of its own.

Outside the eight hops. A canary answers a share of the requests, a shadow gets copies of them. Both
are compared with the old version over the same time: its refusals, and its 95th percentile of
latency.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from windlass.serving.numbers import BUCKETS, Runs

_FOR_LATENCY = 100
"""Answers of each version before their latencies are compared: chance decides with fewer."""

Way = Literal["canary", "shadow"]


@dataclass(frozen=True)
class Rollout:
    """What the spec says."""

    way: Way
    weight: int
    """Percent of the requests."""
    duration: float
    """Seconds."""
    min_requests: int = 20
    max_error_rate: float = 0.01
    max_latency_ratio: float = 2.0


class Tally(NamedTuple):
    """What a version had done at some moment."""

    answers: int
    refusals: int
    latencies: tuple[int, ...]
    """Answers by bucket of duration."""


def tally(runs: Runs) -> Tally:
    """What a version has done until now. Requests that it never tried do not count."""
    skipped = sum(runs.by_reason.get(word, 0) for word in ("REJECTED", "CANCELED"))
    refusals = runs.failures - skipped
    return Tally(runs.successes + refusals, refusals, tuple(runs.total.counts))


class Trial:
    """A new version beside the old one."""

    def __init__(self, rollout: Rollout, old: Runs, began: float) -> None:
        self.rollout = rollout
        self.mismatches = 0
        """Answers of a shadow that differ from those given."""
        self._began = began
        self._before = tally(old)

    def told(self, version: str, runs: Runs) -> str:
        """How it stands, in a sentence."""
        rollout = self.rollout
        compared = f", {self.mismatches} otherwise than the old version"
        return (
            f"version {version} is tried as a {rollout.way} with"
            f" {rollout.weight} % of the requests; {runs.successes} answered"
            f" ({rollout.min_requests} are needed), {runs.failures} refused"
            f"{compared if rollout.way == 'shadow' else ''}"
        )

    def verdict(self, old: Runs, new: Runs, now: float) -> str | Literal[True] | None:
        """True: take over. A text: why not. None: nothing is known yet."""
        rollout, ours = self.rollout, tally(new)
        theirs = _since(tally(old), self._before)
        if ours.answers < rollout.min_requests:
            return None
        rate = ours.refusals / ours.answers
        usual = theirs.refusals / theirs.answers if theirs.answers else 0.0
        if rate > usual + rollout.max_error_rate:
            return (
                f"the {rollout.way} refused {ours.refusals} of {ours.answers} requests"
                f" ({rate:.1%}; the old version {usual:.1%})"
            )
        if now - self._began < rollout.duration:
            return None
        slow, fast = _p95(ours), _p95(theirs)
        enough = min(ours.answers, theirs.answers) >= _FOR_LATENCY and rollout.way == "canary"
        if enough and slow > fast * rollout.max_latency_ratio and slow > BUCKETS[0]:
            return (
                f"the {rollout.way} has a 95th percentile of {slow * 1000:g} ms; the old version"
                f" {fast * 1000:g} ms, and maxLatencyRatio is {rollout.max_latency_ratio:g}"
            )
        return True


def _since(now: Tally, then: Tally) -> Tally:
    latencies = tuple(a - b for a, b in zip(now.latencies, then.latencies, strict=True))
    return Tally(now.answers - then.answers, now.refusals - then.refusals, latencies)


def _p95(done: Tally) -> float:
    """Seconds within which 95 percent of the answers end, spread evenly over their bucket."""
    goal, total, low = 0.95 * sum(done.latencies), 0, 0.0
    for high, count in zip((*BUCKETS, 2 * BUCKETS[-1]), done.latencies, strict=True):
        if count and total + count >= goal:
            return low + (goal - total) / count * (high - low)
        total, low = total + count, high
    return 0.0
