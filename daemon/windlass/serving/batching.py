"""The queue of one loaded model: requests that wait together run together.

Outside the eight hops. There is no window: a batch is what waits when the model is free. A model
whose runs are proven short runs in the event loop, as one batch for each turn of it; any other in
threads of its own, the lanes, which share the one session. After a batch of a model that gains by
batching, a lane lingers a moment for the clients that it has just answered (decided by ``cost``).

A request that spoils a batch, by an index out of range say, is found by running each one alone: its
batch-mates lose nothing.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property, partial

import numpy as np
import orjson
import structlog

from windlass.serving.cost import Cost
from windlass.serving.lanes import Lane
from windlass.serving.model import OnnxModel, RunError
from windlass.serving.orders import Batching
from windlass.serving.tensors import Array

SHORT = 0.0005
"""Seconds; a model whose runs are shorter may run in the event loop."""
_TURN = 0.001
"""Seconds of one batch in the event loop, at most as foreseen."""
_BREACH = 0.005
"""Seconds; a run in the event loop that takes longer sends the model to its lanes."""
_PROOF = 32
"""Short runs in a row before a model may run in the event loop; doubled by each breach."""
_LINGER = 0.15
_LONGEST_LINGER = 0.005
_LOOK_AHEAD = 64
"""Requests of another shape that are passed over in search of batch-mates."""

log = structlog.get_logger()


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

    def part(self, start: int, stop: int) -> list[Array]:
        """The results of some rows; of everything when the run was one request's alone."""
        if stop - start == self.rows:
            return list(self.results)
        return [result[start:stop] for result in self.results]

    @cached_property
    def texts(self) -> list[list[bytes]] | None:
        """JSON of each row of each output, written once for all; None if it needs more care."""
        return None if any(map(_needs_care, self.results)) else list(map(_rows, self.results))


def _needs_care(result: Array) -> bool:
    if result.dtype.kind not in "fiu" or result.ndim == 0 or result.size == 0:
        return True
    return result.dtype.kind == "f" and not np.isfinite(result).all()


def _rows(result: Array) -> list[bytes]:
    """The elements of each row, without brackets."""
    flat = np.ascontiguousarray(result).reshape(result.shape[0], -1)
    text = orjson.dumps(flat, option=orjson.OPT_SERIALIZE_NUMPY)
    return text[2:-2].split(b"],[")


class Ask:
    """One request in the queue. Exactly one of ``done`` and ``fail`` is called, in the loop."""

    __slots__ = ("arrived", "expires", "inputs", "key", "outputs", "rows")

    def __init__(self, inputs: Sequence[Array], outputs: tuple[str, ...], rows: int) -> None:
        self.inputs = inputs
        """In the model's order."""
        self.outputs = outputs
        self.rows = rows
        """Rows along the batch axis; 0 when this request must run alone."""
        self.key: object = (outputs, *(each.shape[1:] for each in inputs)) if rows else None
        """Requests with equal keys can run together."""
        self.arrived = time.perf_counter()
        self.expires = float("inf")
        """When nobody waits for it any more, by ``time.perf_counter``."""

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for the answer."""
        return True

    @abstractmethod
    def done(self, batch: Batch, start: int, stop: int) -> None:
        """The answer is in these rows of the batch."""

    @abstractmethod
    def fail(self, status: int, message: str) -> None:
        """There is no answer; ``status`` says why in the words of HTTP."""


class BatchQueue:
    """Runs one model for everybody who asks. Lives in the event loop."""

    def __init__(self, model: OnnxModel, batching: Batching, lanes: int = 1) -> None:
        self.model = model
        self.batching = batching
        self.cost = Cost()
        self.waiting: deque[Ask] = deque()
        self.busy = 0
        """Requests that wait or run."""
        self._idle = asyncio.Event()
        self.asleep = False
        """Whether the model is out of the memory; a request wakes it up."""
        self.wake: Callable[[], None] = _nobody
        self.executions = 0
        self.batches: dict[int, tuple[int, float]] = {}
        """Number of runs and their seconds, by rows."""
        self._loop = asyncio.get_running_loop()
        self.most = batching.max_rows if model.batches else 1
        """Rows of one run, at most."""
        self._lanes: list[Lane] = []
        self._wanted_lanes = lanes
        self._free: list[Lane] = []
        self._working: dict[Lane, tuple[float, list[Ask]]] = {}
        """Since when, and on what."""
        self.hung = 0
        """Lanes that were given up."""
        self._scheduled = False
        self._linger: asyncio.TimerHandle | None = None
        self._linger_until = 0.0
        self._expected = 0
        self._proof = _PROOF
        self._short_runs = 0
        for rows, seconds in model.curve:
            self.cost.learn(rows, seconds)

    def put(self, ask: Ask) -> None:
        """Take a request, or fail it at once when too many wait."""
        if len(self.waiting) >= self.batching.max_waiting:
            ask.fail(429, f"{len(self.waiting)} requests wait for this model already; come again")
            return
        self.waiting.append(ask)
        self.busy += 1
        if self.asleep:
            self.wake()
        elif not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def rows_of(self, inputs: Sequence[Array]) -> int:
        """Rows of a request along the batch axis; 0 when it must run alone."""
        if self.most == 1 or not self.model.batches:
            return 0
        rows = inputs[0].shape[0]
        return rows if all(each.shape[0] == rows for each in inputs) else 0

    def predicted_wait(self) -> float:
        """Seconds until what waits now is answered."""
        rows = sum(ask.rows or 1 for ask in self.waiting)
        size = min(self.cost.worthwhile(self.most), rows) or 1
        return self.cost.of(size) * rows / size / max(self._wanted_lanes, 1)

    @property
    def in_loop(self) -> bool:
        """Whether the model's runs are proven short."""
        return self._short_runs >= self._proof and self.model.steady and self.cost.of(1) < SHORT

    @property
    def lanes(self) -> int:
        """How many runs may go on at the same time."""
        return self._wanted_lanes

    @lanes.setter
    def lanes(self, number: int) -> None:
        self._wanted_lanes = number
        self._schedule()

    def give_up_hung(self) -> None:
        """Put new lanes in the place of those whose run never ends. Called once a second."""
        limit = self.batching.max_run
        end = self._loop.time() - limit
        for lane, (since, asks) in list(self._working.items()):
            if since < end:
                del self._working[lane]
                self._lanes.remove(lane)
                lane.close()
                self.hung += 1
                self.busy -= len(asks)
                log.error("a replica hangs", seconds=limit, requests=len(asks))
                for ask in asks:
                    ask.fail(504, f"the run took longer than maxRun, {limit:g} s; send less")
                self._schedule()
        self._note_idle()

    def awaken(self, model: OnnxModel) -> None:
        """Go on with the model loaded anew."""
        self.model = model
        self.asleep = False
        self._schedule()

    def refuse_all(self, status: int, message: str) -> None:
        """Fail everything that waits."""
        waiting = list(self.waiting)
        self.waiting.clear()
        self.busy -= len(waiting)
        for ask in waiting:
            ask.fail(status, message)
        self._note_idle()

    async def drained(self) -> None:
        """Wait for the last request to end. Only when nobody can put one any more."""
        while self.busy:
            self._idle.clear()
            await self._idle.wait()

    def close(self) -> None:
        """End the lanes. Only when idle."""
        for lane in self._lanes:
            lane.close()
        self._lanes.clear()
        self._free.clear()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Run what has come since the last turn."""
        self._scheduled = False
        if not self.waiting or self.asleep:
            return
        if self.in_loop and len(self._free) == len(self._lanes):
            asks = self._take(self.cost.rows_within(_TURN, self.most))
            if asks:
                self._run_here(asks)
            if self.waiting:
                self._schedule()
        else:
            self._feed()
        self._note_idle()

    def _take(self, most: int) -> list[Ask]:
        """The longest waiting request and its batch-mates."""
        waiting = self.waiting
        now = time.perf_counter()
        asks: list[Ask] = []
        passed: list[Ask] = []
        rows = 0
        while waiting and (rows < most or not asks):
            ask = waiting.popleft()
            if ask.expires < now or not ask.wanted:
                self._drop(ask)
            elif not asks:
                asks.append(ask)
                rows = ask.rows
                if not rows:
                    break
            elif ask.key == asks[0].key and rows + ask.rows <= most:
                asks.append(ask)
                rows += ask.rows
            else:
                passed.append(ask)
                if len(passed) >= _LOOK_AHEAD:
                    break
        waiting.extendleft(reversed(passed))
        return asks

    def _drop(self, ask: Ask) -> None:
        self.busy -= 1
        ask.fail(504, "the request waited longer than its deadline allows; ask for more time")

    def _run_here(self, asks: list[Ask]) -> None:
        outcome = run(self.model, asks)
        if isinstance(outcome, Batch) and outcome.cost > _BREACH:
            self._proof = min(self._proof * 2, 1 << 20)
            self._short_runs = 0
        self._finish(asks, outcome)

    def _feed(self) -> None:
        """Give every free lane something to do."""
        while len(self._lanes) < self._wanted_lanes:
            lane = Lane()
            self._lanes.append(lane)
            self._free.append(lane)
        while len(self._lanes) > self._wanted_lanes and self._free:
            lane = self._free.pop()
            self._lanes.remove(lane)
            lane.close()
        while self._free and self.waiting and not self._lingers():
            asks = self._take(self.cost.worthwhile(self.most))
            if asks:
                lane = self._free.pop()
                self._working[lane] = self._loop.time(), asks
                then = partial(self._lane_done, lane, asks)
                lane.submit(partial(run, self.model, asks), then)

    def _lingers(self) -> bool:
        """Whether it is better to wait a moment for the clients that were just answered."""
        if self._expected <= 1 or len(self.waiting) >= self._expected:
            self._stop_linger()
            return False
        now = self._loop.time()
        if now >= self._linger_until:
            self._stop_linger()
            return False
        if self._linger is None:
            self._linger = self._loop.call_at(self._linger_until, self._linger_ended)
        return True

    def _linger_ended(self) -> None:
        self._linger = None
        self._expected = 0
        self._schedule()

    def _stop_linger(self) -> None:
        self._expected = 0
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    def _lane_done(self, lane: Lane, asks: list[Ask], outcome: Batch | Exception) -> None:
        if self._working.pop(lane, None) is None:
            return  # it was given up, and its clients have their answer
        self._free.append(lane)
        cost, delay = self.cost, self.batching.max_delay
        if delay is None:
            gains = self.most > 1 and cost.fixed > 2 * cost.row
            delay = min(_LONGEST_LINGER, _LINGER * cost.fixed) if gains else 0.0
        if delay > 0 and len(asks) > 1:
            self._linger_until = self._loop.time() + delay
            self._expected = min(len(asks), cost.worthwhile(self.most))
        # The lane gets its next batch before the answers of this one are written.
        if self.waiting:
            self._feed()
        self._finish(asks, outcome)
        self._note_idle()

    def _finish(self, asks: list[Ask], outcome: Batch | Exception) -> None:
        if isinstance(outcome, Exception) and len(asks) > 1:
            self._one_by_one(asks)
            return
        self.busy -= len(asks)
        if isinstance(outcome, Batch):
            self._learn(outcome)
        start = 0
        for ask in asks:
            # One client's connection must never cost another its answer.
            try:
                if isinstance(outcome, Exception):
                    _refuse(ask, outcome)
                else:
                    stop = start + (ask.rows or outcome.rows)
                    ask.done(outcome, start, stop)
                    start = stop
            except Exception:
                log.exception("an answer could not be given")

    def _one_by_one(self, asks: list[Ask]) -> None:
        """One of them spoils the batch: each runs alone, so that only that one fails."""
        for ask in asks:
            ask.key, ask.rows = None, 0
        self.waiting.extendleft(reversed(asks))
        self._schedule()

    def _learn(self, batch: Batch) -> None:
        seconds = batch.ended - batch.started
        self.cost.learn(batch.rows or 1, batch.cost)
        self._short_runs = self._short_runs + 1 if batch.cost < _BREACH else 0
        self.executions += 1
        runs, total = self.batches.get(batch.rows, (0, 0.0))
        self.batches[batch.rows] = runs + 1, total + seconds

    def _note_idle(self) -> None:
        if not self.busy:
            self._idle.set()


def _nobody() -> None:
    raise AssertionError("a model sleeps and nobody can wake it up")


def run(model: OnnxModel, asks: Sequence[Ask]) -> Batch | Exception:
    """Run several requests as one; in the loop or in a lane. What the model refuses comes back."""
    first = asks[0]
    rows = sum(ask.rows for ask in asks)
    try:
        started, spent = time.perf_counter(), model.clock()
        if len(asks) == 1:
            inputs = first.inputs
        else:
            inputs = [
                np.concatenate(parts) for parts in zip(*(a.inputs for a in asks), strict=True)
            ]
        results = model.run(inputs, first.outputs)
        ended, spent = time.perf_counter(), model.clock() - spent
    except Exception as error:
        return error
    if len(asks) > 1 and not all(each.ndim and each.shape[0] == rows for each in results):
        model.batches = False
        return RunError("the outputs have other rows than the inputs")
    return Batch(results, rows or 1, started, ended, spent)


def _refuse(ask: Ask, error: Exception) -> None:
    if isinstance(error, RunError):
        ask.fail(400, str(error))
        return
    log.error("fault in a run", exc_info=error)
    ask.fail(500, "a fault in Windlass; the log of the serving process has the details")
