"""Requests that wait for a model, and what one run of it gave for several of them.

Outside the eight hops. ``batching`` decides which ones run together.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Protocol

import numpy as np
import orjson

from windlass.serving.http import Reply
from windlass.serving.model import OnnxModel, RunError
from windlass.serving.reading import Question
from windlass.serving.tensors import Array

_PLAIN_KINDS = "fiub"


class Batch:
    """What one run gave, for all the requests in it."""

    def __init__(
        self, results: Sequence[Array], rows: int, started: float, ended: float, cost: float
    ) -> None:
        self.results = results
        self.rows = rows
        self.started = started
        """By ``time.perf_counter``, as ``ended``."""
        self.ended = ended
        self.cost = cost
        """Seconds that the run took of a processor: other work on the machine does not count."""
        self.single: tuple[object, int, list[bytes]] | None = None
        """Answers of one row each, once one is written: for which wish, the length of the JSON
        before binary tensors, and the body of each row."""
        self.answered: list[Ask] = []
        """Those that want to be counted, all at once, when the answers are out."""

    def part(self, start: int, stop: int) -> list[Array]:
        """The results of some rows; of everything when the run was one request's alone."""
        if stop - start == self.rows:
            return list(self.results)
        return [result[start:stop] for result in self.results]

    @cached_property
    def texts(self) -> list[list[bytes]] | None:
        """JSON of each row of each output, written once for all; None if it needs more care."""
        return None if any(map(_needs_care, self.results)) else list(map(_rows, self.results))

    @cached_property
    def raws(self) -> list[bytes] | None:
        """Bytes of each output, little-endian; None where elements have no fixed size."""
        if any(each.dtype.kind not in _PLAIN_KINDS for each in self.results):
            return None
        little = (each.astype(each.dtype.newbyteorder("<"), copy=False) for each in self.results)
        return [each.tobytes() for each in little]


def _needs_care(result: Array) -> bool:
    if result.dtype.kind not in "fiu" or result.ndim == 0 or result.size == 0:
        return True
    return result.dtype.kind == "f" and not np.isfinite(result).all()


def _rows(result: Array) -> list[bytes]:
    """The elements of each row, without brackets."""
    flat = np.ascontiguousarray(result).reshape(result.shape[0], -1)
    text = orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY)
    return text[2:-2].split(b"],[")


class Caller(Protocol):
    """Who asks."""

    @property
    def gone(self) -> bool:
        """Whether nobody waits for the answer any more."""

    def reply(self, reply: Reply) -> None:
        """Take the answer; called once, in the event loop."""


class Ask:
    """One request in the queue. Exactly one of ``done`` and ``fail`` is called, in the loop."""

    __slots__ = ("arrived", "caller", "expires", "question", "rows")

    def __init__(
        self, question: Question, gathers: bool, arrived: float, caller: Caller | None = None
    ) -> None:
        self.question = question
        self.caller = caller
        """Who waits for the answer; None if it is wanted in any case."""
        self.rows = question.wish.rows if gathers else 0
        """Rows along the batch axis; 0 when this request must run alone."""
        self.arrived = arrived
        """By ``time.perf_counter``."""
        self.expires = float("inf")
        """When nobody waits for it any more, by ``time.perf_counter``."""

    @abstractmethod
    def done(self, batch: Batch, start: int, stop: int) -> None:
        """The answer is in these rows of the batch."""

    def count(self, batch: Batch) -> None:
        """Count everything in ``batch.answered``; asked of the first one there."""

    @abstractmethod
    def fail(self, status: int, message: str) -> None:
        """There is no answer; ``status`` says why in the words of HTTP."""


def run(model: OnnxModel, asks: Sequence[Ask]) -> Batch | Exception:
    """Run several requests as one; in the loop or in a lane. What the model refuses comes back."""
    first = asks[0]
    rows = sum(ask.rows for ask in asks)
    try:
        started, spent = time.perf_counter(), model.clock()
        inputs = first.question.inputs if len(asks) == 1 else _together(asks, rows)
        results = model.run(inputs, first.question.wish.names)
        ended, spent = time.perf_counter(), model.clock() - spent
    except Exception as error:
        return error
    if len(asks) > 1 and not all(each.ndim and each.shape[0] == rows for each in results):
        model.batches = False
        return RunError("the outputs have other rows than the inputs")
    return Batch(results, rows or 1, started, ended, spent)


def _together(asks: Sequence[Ask], rows: int) -> list[Array]:
    """The inputs of several requests as one."""
    questions = [ask.question for ask in asks]
    wish = questions[0].wish
    if wish.layout is not None and all([question.wish is wish for question in questions]):
        return [wish.together([question.raw for question in questions], rows)]
    return [np.concatenate(parts) for parts in zip(*(q.inputs for q in questions), strict=True)]
