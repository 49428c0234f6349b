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
from collections import deque
from collections.abc import Callable
from functools import partial

import structlog

from windlass.serving.batch import Ask, Batch, run
from windlass.serving.cost import Cost
from windlass.serving.lanes import Lane
from windlass.serving.linger import Linger
from windlass.serving.model import OnnxModel, RunError
from windlass.serving.orders import Batching

SHORT = 0.0005
"""Seconds; a model whose runs are shorter may run in the event loop."""
_TURN = 0.001
"""Seconds of one batch in the event loop, at most as foreseen."""
_BREACH = 0.005
"""Seconds; a run in the event loop that takes longer sends the model to its lanes."""
_PROOF = 32
"""Short runs in a row before a model may run in the event loop; doubled by each breach."""
_SUCCESSOR = 4
"""The same for a model that takes the place of one that was there, if its trial was as short."""
_LOOK_AHEAD = 64
"""Requests of another shape that are passed over in search of batch-mates."""

log = structlog.get_logger()


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
        self.gathers = self.most > 1
        """Whether requests may run together."""
        self._lanes: list[Lane] = []
        self._wanted_lanes = lanes
        self._free: list[Lane] = []
        self._working: dict[Lane, tuple[float, list[Ask]]] = {}
        """Since when, and on what."""
        self.hung = 0
        """Lanes that were given up."""
        self._scheduled = False
        self._linger = Linger(self._loop, self._schedule)
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

    def succeed(self, old: BatchQueue) -> None:
        """Take the place of that queue, and believe sooner that runs are short if its were."""
        if old.in_loop:
            self._proof = min(self._proof, _SUCCESSOR)

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
        self.gathers = self.most > 1 and model.batches
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
        rows, key = 0, None
        while waiting and (rows < most or not asks):
            ask = waiting.popleft()
            caller = ask.caller
            if ask.expires < now or (caller is not None and caller.gone):
                self._drop(ask)
            elif not asks:
                asks.append(ask)
                rows, key = ask.rows, ask.question.wish.key
                if not rows:
                    break
            elif ask.rows and ask.question.wish.key == key and rows + ask.rows <= most:
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
            self._proof = min(max(self._proof, _PROOF) * 2, 1 << 20)
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
        while self._free and self.waiting and not self._linger.holds(len(self.waiting)):
            asks = self._take(self.cost.worthwhile(self.most))
            if asks:
                lane = self._free.pop()
                self._working[lane] = self._loop.time(), asks
                then = partial(self._lane_done, lane, asks)
                lane.submit(partial(run, self.model, asks), then)

    def _lane_done(self, lane: Lane, asks: list[Ask], outcome: Batch | Exception) -> None:
        if self._working.pop(lane, None) is None:
            return  # it was given up, and its clients have their answer
        self._free.append(lane)
        delay = self.batching.max_delay
        if delay is None:
            delay = self.cost.worth_waiting() if self.most > 1 else 0.0
        if delay > 0 and len(asks) > 1:
            self._linger.begin(delay, min(len(asks), self.cost.worthwhile(self.most)))
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
        if isinstance(outcome, Batch) and outcome.answered:
            outcome.answered[0].count(outcome)

    def _one_by_one(self, asks: list[Ask]) -> None:
        """One of them spoils the batch: each runs alone, so that only that one fails."""
        self.gathers = self.most > 1 and self.model.batches
        for ask in asks:
            ask.rows = 0
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


def _refuse(ask: Ask, error: Exception) -> None:
    if isinstance(error, RunError):
        ask.fail(400, str(error))
        return
    log.error("fault in a run", exc_info=error)
    ask.fail(500, "a fault in Windlass; the log of the serving process has the details")
