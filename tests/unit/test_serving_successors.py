"""A model that takes the place of another costs little."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from rig import onnx_models
from windlass.serving import batching, model
from windlass.serving.batch import Ask, Batch
from windlass.serving.batching import BatchQueue
from windlass.serving.model import OnnxModel
from windlass.serving.oip import WantedOutput
from windlass.serving.orders import Batching, Options
from windlass.serving.reading import asked


class Answered(Ask):
    """Counts its answers."""

    __slots__ = ("there",)

    def done(self, batch: Batch, start: int, stop: int) -> None:
        self.there = True

    def fail(self, status: int, message: str) -> None:
        raise AssertionError(message)


async def short_runs(queue: BatchQueue, number: int) -> None:
    """So many runs of one row, in the lanes or in the loop; as foreseen, none takes long."""
    wanted = tuple(WantedOutput(spec, binary=False) for spec in queue.model.signature.outputs)
    for _ in range(number):
        row = np.ones((1, 784), np.float32)
        queue.put(Answered(asked(None, [row], wanted), queue.gathers, time.perf_counter()))
        await queue.drained()


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return onnx_models.perceptron(tmp_path / "small.onnx")


def loaded(path: Path) -> OnnxModel:
    found = OnnxModel.load(path, Options())
    # The clock of this machine may stand still or jump while others use it: nothing is timed here.
    found.clock = lambda: 0.0
    found.curve = [(1, 0.0001), (4, 0.0001)]
    return found


async def test_a_successor_runs_in_the_loop_after_fewer_runs(small: Path) -> None:
    old, new = BatchQueue(loaded(small), Batching()), BatchQueue(loaded(small), Batching())
    new.succeed(old)
    await short_runs(new, 4)
    assert not new.in_loop, "the old one was not proven short, so the new one has all to prove"
    await short_runs(old, batching._PROOF)
    assert old.in_loop
    newer = BatchQueue(loaded(small), Batching())
    newer.succeed(old)
    await short_runs(newer, 3)
    assert not newer.in_loop
    await short_runs(newer, 1)
    assert newer.in_loop
    for queue in (old, new, newer):
        queue.close()


async def test_a_successor_whose_trial_was_long_stays_out_of_the_loop(small: Path) -> None:
    old = BatchQueue(loaded(small), Batching())
    await short_runs(old, batching._PROOF)
    heavy = loaded(small)
    heavy.curve = [(1, 0.01)] * 200
    new = BatchQueue(heavy, Batching())
    new.succeed(old)
    await short_runs(new, 8)
    assert not new.in_loop
    for queue in (old, new):
        queue.close()


async def test_a_successor_that_breaks_its_word_has_more_to_prove_than_any(small: Path) -> None:
    old = BatchQueue(loaded(small), Batching())
    await short_runs(old, batching._PROOF)
    new = BatchQueue(loaded(small), Batching())
    new.succeed(old)
    await short_runs(new, 4)
    assert new.in_loop
    ticks = iter([0.0, 1.2 * batching._BREACH])  # so little that what a run costs stays short
    new.model.clock = lambda: next(ticks)
    await short_runs(new, 1)
    new.model.clock = lambda: 0.0
    await short_runs(new, 2 * batching._PROOF - 1)
    assert not new.in_loop
    await short_runs(new, 1)
    assert new.in_loop, "nothing else kept it out"
    for queue in (old, new):
        queue.close()


def test_memory_goes_back_when_much_was_dropped(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trims: list[int] = []
    real = model.trim_memory

    def counted() -> None:
        trims.append(1)
        real()

    monkeypatch.setattr(model, "trim_memory", counted)
    monkeypatch.setattr(model, "_TRIM_AFTER", 3 * small.stat().st_size)
    real()
    for number in range(7):
        loaded(small).close()
        assert len(trims) == (number + 1) // 3
    large = loaded(small)
    large.size = model._TRIM_AFTER
    large.close()
    assert len(trims) == 3
