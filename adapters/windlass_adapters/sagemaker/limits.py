"""How often each API is called: token buckets shared by all workers of the process.

AWS throttles by account and API, and does not say where the limit is: a bucket starts at a rate
that is known to be safe, halves when AWS throttles, and grows back by a little with each success.
"""

from __future__ import annotations

import asyncio
import fnmatch
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from windlass_adapters.base import WaitingError

Seconds = Callable[[], float]
Pause = Callable[[float], Awaitable[None]]

RATES: Mapping[str, float] = {
    "ListTrainingJobs": 0.5,
    "List*": 2.0,
    "Search": 1.0,
    "DescribeAlarms": 2.0,
    "Describe*": 5.0,
    "Get*": 5.0,
    "Invoke*": 1000.0,
    "s3:*": 100.0,
    "*": 2.0,
}
"""Calls a second, by operation; the first pattern that fits counts."""
BURST = 5.0
"""Seconds' worth of calls that may come at once."""
LOWEST = 0.05
"""Calls a second that throttling leaves at least."""
LONGEST_WAIT = 5.0
"""Seconds that a call waits for its turn before it gives up for now."""


@dataclass
class Bucket:
    """The tokens of one API."""

    full_rate: float
    rate: float
    tokens: float
    filled_at: float

    def take(self, now: float) -> float:
        """Take a token; the seconds until it is there, so that takers queue by themselves."""
        burst = max(self.rate * BURST, 1.0)
        self.tokens = min(burst, self.tokens + (now - self.filled_at) * self.rate)
        self.filled_at = now
        self.tokens -= 1.0
        return 0.0 if self.tokens >= 0 else -self.tokens / self.rate

    def give_back(self) -> None:
        """A token that was not used after all."""
        self.tokens += 1.0

    def halve(self) -> None:
        """AWS throttled."""
        self.rate = max(self.rate / 2, LOWEST)
        self.tokens = min(self.tokens, 0.0)

    def grow(self) -> None:
        """AWS answered."""
        self.rate = min(self.full_rate, self.rate + self.full_rate / 50)


class Limits:
    """The buckets of one account and region."""

    def __init__(
        self,
        rates: Mapping[str, float],
        now: Seconds = time.monotonic,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._rates = {**rates, **{k: v for k, v in RATES.items() if k not in rates}}
        self._now = now
        self._pause = pause
        self._buckets: dict[str, Bucket] = {}

    def of(self, operation: str) -> Bucket:
        """The bucket of an API."""
        if operation not in self._buckets:
            rate = next(r for p, r in self._rates.items() if fnmatch.fnmatchcase(operation, p))
            self._buckets[operation] = Bucket(rate, rate, max(rate * BURST, 1.0), self._now())
        return self._buckets[operation]

    async def take(self, operation: str) -> Bucket:
        """Wait for this API's turn. Raises WaitingError when that would take too long."""
        bucket = self.of(operation)
        wait = bucket.take(self._now())
        if wait > LONGEST_WAIT:
            bucket.give_back()
            raise WaitingError(
                f"{operation}: {bucket.rate:g} calls a second are allowed and many are waiting"
            )
        if wait > 0:
            await self._pause(wait)
        return bucket
