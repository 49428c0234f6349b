"""What a model's runs cost: t(n) = A + C * n seconds for n rows, learned from its own runs.

Outside the eight hops. The newest runs count most, so that a model whose inputs change is learned
anew. All decisions of ``batching`` follow from these two numbers.
"""

from __future__ import annotations

import math

_MEMORY = 0.98
"""Weight of the past at each new run: about fifty runs are remembered."""
_WORTH = 10
"""A batch grows until A is a tenth of its cost: more rows would win less, and add waiting. With a
twentieth, noise in A made the batches of a model that only computes now long, now short."""
_LINGER = 0.15
"""Share of A that may be spent on waiting."""
_LONGEST_LINGER = 0.005


class Cost:
    """The learned curve of one model."""

    def __init__(self) -> None:
        self.fixed = 0.0
        """A: seconds of a run, whatever its size."""
        self.row = 0.0
        """C: seconds of each row."""
        self.runs = 0
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    def learn(self, rows: int, seconds: float) -> None:
        """Note one run."""
        self.runs += 1
        self._n = self._n * _MEMORY + 1.0
        self._x = self._x * _MEMORY + rows
        self._y = self._y * _MEMORY + seconds
        self._xx = self._xx * _MEMORY + rows * rows
        self._xy = self._xy * _MEMORY + rows * seconds
        spread = self._n * self._xx - self._x * self._x
        mean = self._y / self._n
        if spread > 0.05 * self._n * self._n:
            self.row = max((self._n * self._xy - self._x * self._y) / spread, 0.0)
        # With sizes that are all the same nothing new is known of the slope: it is kept.
        self.row = min(self.row, self._y / self._x)
        self.fixed = max(mean - self.row * self._x / self._n, 0.0)

    def of(self, rows: int) -> float:
        """Seconds that a run of so many rows is expected to take."""
        return self.fixed + self.row * rows

    def worthwhile(self, most: int) -> int:
        """How many rows a batch may gather before more would only cost waiting, up to ``most``."""
        if self.row <= 0.0:
            return most
        return max(1, min(most, math.ceil(_WORTH * self.fixed / self.row)))

    def worth_waiting(self) -> float:
        """Seconds that a free lane may wait for more rows; 0 unless A is large."""
        if self.fixed <= 2 * self.row:
            return 0.0
        return min(_LONGEST_LINGER, _LINGER * self.fixed)

    def rows_within(self, seconds: float, most: int) -> int:
        """How many rows run in that time, from 1 to ``most``."""
        if self.row <= 0.0:
            return most
        return max(1, min(most, int((seconds - self.fixed) / self.row)))
