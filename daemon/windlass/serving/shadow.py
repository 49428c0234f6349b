"""Copies of requests for a version that is only watched: nobody waits for their answers.

Outside the eight hops. A copy's results are compared with those that the client got.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from windlass.serving.batch import Ask, Batch
from windlass.serving.reading import Question
from windlass.serving.rollout import Trial
from windlass.serving.served import Served
from windlass.serving.tensors import Array


class Copy(Ask):
    """One copied request."""

    __slots__ = ("_others", "_own", "_served", "_trial")

    def __init__(self, trial: Trial, served: Served, question: Question) -> None:
        super().__init__(question, served.queue.gathers, time.perf_counter())
        self._trial = trial
        self._served = served
        self._own: Sequence[Array] | None = None
        self._others: Sequence[Array] | None = None

    def done(self, batch: Batch, start: int, stop: int) -> None:
        runs = self._served.runs
        runs.successes += 1
        runs.rows += stop - start
        runs.total.add(batch.ended - self.arrived)
        self._own = batch.part(start, stop)
        self._compare()

    def fail(self, status: int, message: str) -> None:
        self._served.runs.failed(status, 0.0)

    def answered(self, results: Sequence[Array]) -> None:
        """Say what the client got."""
        self._others = results
        self._compare()

    def _compare(self) -> None:
        own, others = self._own, self._others
        if own is None or others is None:
            return
        same = len(own) == len(others) and all(map(_close, own, others))
        if not same:
            self._trial.mismatches += 1


def _close(one: Array, other: Array) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind == "f":
        return bool(np.allclose(one, other, rtol=1e-2, atol=1e-4, equal_nan=True))
    return bool((one == other).all())
