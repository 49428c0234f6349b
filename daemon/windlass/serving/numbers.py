"""Plain counters of requests: added to on the way of each request, read at a scrape.

Outside the eight hops. Labels hold names of Deployments only, never what a client sent: a stranger
cannot fill the memory with series.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

LARGEST: Final = {"several": "largest"}
"""Marks a field of which, over several processes, the largest counts and not the sum."""
PASSING: Final = {"several": "passing"}
"""Marks a field that says how things stand: it ends with its process."""
BUCKETS = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
)
"""Seconds; a small model answers within the first one."""
REASONS = {429: "REJECTED", 503: "REJECTED", 499: "CANCELED", 504: "CANCELED", 500: "BACKEND"}
"""Triton's words for failures, by HTTP status; any other is OTHER."""


@dataclass(slots=True)
class Histogram:
    """Durations by bucket."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Note one duration."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds

    def add_all(self, durations: Sequence[float]) -> None:
        """Note several, which mostly fall into the same bucket."""
        first, last = bisect_left(BUCKETS, min(durations)), bisect_left(BUCKETS, max(durations))
        if first == last:
            self.counts[first] += len(durations)
            self.seconds += sum(durations)
        else:
            for seconds in durations:
                self.add(seconds)

    def cumulative(self) -> list[tuple[str, int]]:
        """(upper bound, how many are within it), as Prometheus wants it."""
        total, found = 0, []
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self.counts, strict=True):
            total += count
            found.append((bound, total))
        return found


@dataclass(slots=True)
class Requests:
    """Answers to inference requests, over all versions of one Deployment."""

    by_code: dict[int, int] = field(default_factory=dict)
    duration: Histogram = field(default_factory=Histogram)

    def ended(self, code: int, seconds: float) -> None:
        """Note one answer."""
        self.by_code[code] = self.by_code.get(code, 0) + 1
        self.duration.add(seconds)

    def answered(self, durations: Sequence[float]) -> None:
        """Note several good answers."""
        self.by_code[200] = self.by_code.get(200, 0) + len(durations)
        self.duration.add_all(durations)

    @property
    def total(self) -> int:
        return sum(self.by_code.values())

    @property
    def ok(self) -> int:
        return self.by_code.get(200, 0)

    @property
    def errors(self) -> int:
        return self.total - self.ok


@dataclass(slots=True)
class Runs:
    """What became of the requests of one version, in the parts that Triton tells apart."""

    successes: int = 0
    failures: int = 0
    rows: int = 0
    server_errors: int = 0
    seconds: float = 0.0
    failed_seconds: float = 0.0
    reading: float = 0.0
    queue: float = 0.0
    compute: float = 0.0
    writing: float = 0.0
    by_reason: dict[str, int] = field(default_factory=dict)
    last: float = field(default=0.0, metadata=LARGEST)
    """When the last request was answered, by ``time.perf_counter``."""
    total: Histogram = field(default_factory=Histogram)

    def failed(self, status: int, seconds: float) -> None:
        """Note a request without an answer."""
        self.failures += 1
        self.failed_seconds += seconds
        if status >= 500:
            self.server_errors += 1
        reason = REASONS.get(status, "OTHER")
        self.by_reason[reason] = self.by_reason.get(reason, 0) + 1
