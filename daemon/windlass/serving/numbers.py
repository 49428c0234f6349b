"""Plain counters of requests: added to on the way of each request, read at a scrape.

Outside the eight hops. Labels hold names of Deployments only, never what a client sent: a stranger
cannot fill the memory with series.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence

BUCKETS = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
)
"""Seconds; a small model answers within the first one."""
REASONS = {429: "REJECTED", 503: "REJECTED", 499: "CANCELED", 504: "CANCELED", 500: "BACKEND"}
"""Triton's words for failures, by HTTP status; any other is OTHER."""


class Histogram:
    """Durations by bucket."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0

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


class Requests:
    """Answers to inference requests, over all versions of one Deployment."""

    __slots__ = ("by_code", "duration")

    def __init__(self) -> None:
        self.by_code: dict[int, int] = defaultdict(int)
        self.duration = Histogram()

    def ended(self, code: int, seconds: float) -> None:
        """Note one answer."""
        self.by_code[code] += 1
        self.duration.add(seconds)

    @property
    def total(self) -> int:
        return sum(self.by_code.values())

    @property
    def ok(self) -> int:
        return self.by_code.get(200, 0)

    @property
    def errors(self) -> int:
        return self.total - self.ok


class Runs:
    """What became of the requests of one version, in the parts that Triton tells apart."""

    __slots__ = (
        "by_reason",
        "compute",
        "failed_seconds",
        "failures",
        "last",
        "queue",
        "reading",
        "rows",
        "seconds",
        "server_errors",
        "successes",
        "total",
        "writing",
    )

    def __init__(self) -> None:
        self.successes = self.failures = self.rows = self.server_errors = 0
        self.seconds = self.failed_seconds = 0.0
        self.reading = self.queue = self.compute = self.writing = 0.0
        self.by_reason: dict[str, int] = {}
        self.last = 0.0
        """When the last request was answered, by ``time.perf_counter``."""
        self.total = Histogram()

    def failed(self, status: int, seconds: float) -> None:
        """Note a request without an answer."""
        self.failures += 1
        self.failed_seconds += seconds
        if status >= 500:
            self.server_errors += 1
        reason = REASONS.get(status, "OTHER")
        self.by_reason[reason] = self.by_reason.get(reason, 0) + 1
