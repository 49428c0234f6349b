"""The learned curve of a model decides how many rows its batches gather."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from windlass.serving.cost import Cost

MOST = 32


def played(fixed: float, row: float, noise: float, seed: int) -> Iterator[int]:
    """The sizes of 250 batches while enough wait."""
    chance, cost = random.Random(seed), Cost()
    for rows in (1, 1, 1, 4, 4):  # the trial at the load
        cost.learn(rows, (fixed + row * rows) * chance.gauss(1, noise))
    for _ in range(250):
        rows = cost.worthwhile(MOST)
        yield rows
        cost.learn(rows, (fixed + row * rows) * max(0.5, chance.gauss(1, noise)))


@pytest.mark.parametrize("noise", [0.05, 0.3])
def test_a_model_that_gains_by_batching_fills_its_batches(noise: float) -> None:
    for seed in range(20):
        sizes = list(played(0.024, 0.0014, noise, seed))
        assert sum(sizes) / len(sizes) > 0.9 * MOST


def test_a_model_that_only_computes_runs_in_small_batches_though_its_times_vary() -> None:
    """Long ones would come now and then, and all others wait for them: uneven for no gain."""
    sizes = [size for seed in range(60) for size in played(0.0003, 0.014, 0.15, seed)]
    assert sum(size > 4 for size in sizes) < len(sizes) / 100
