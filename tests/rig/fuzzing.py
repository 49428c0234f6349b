"""Input that was right once: the committed corpus, cut up and put together again."""

from __future__ import annotations

import gc
import os
import random
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

CORPUS = Path(__file__).resolve().parents[1] / "data" / "fuzz"
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
"""For each target; ``make fuzz`` sets more."""
SECONDS = 5.0
"""An example that takes longer hangs."""
GROWTH = 256 * 1024
"""Bytes that may stay behind after hundreds of examples: caches that fill once."""
ROUND = 300

fuzzed = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
few = settings(fuzzed, max_examples=max(EXAMPLES // 10, 10))
"""For targets that start processes."""


def seeds(kind: str) -> list[bytes]:
    """The corpus of a kind, in order."""
    return [file.read_bytes() for file in sorted((CORPUS / kind).iterdir())]


def mutate(seed: bytes, edits: Sequence[tuple[int, int, int, bytes]]) -> bytes:
    """Replace, double or drop pieces: (where, how long, how often to keep it, what to put in)."""
    data = seed
    for where, length, times, put in edits:
        at = where % (len(data) + 1)
        data = data[:at] + data[at : at + length] * times + put + data[at + length :]
    return data[:100_000]


def mutated(kind: str, words: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """The corpus with edits, or bytes of no origin."""
    edit = st.tuples(
        st.integers(0, 5_000),
        st.integers(0, 40),
        st.integers(0, 3),
        st.sampled_from(words) | st.binary(max_size=6),
    )
    grown = st.builds(mutate, st.sampled_from(seeds(kind)), st.lists(edit, max_size=6))
    return grown | st.binary(max_size=200)


def in_time(target: Callable[[bytes], None], data: bytes) -> None:
    """Run a target on one example, and fail when it takes too long."""
    begin = time.perf_counter()
    target(data)
    took = time.perf_counter() - begin
    assert took < SECONDS, f"{took:.1f} s for {data!r}"


def growth(target: Callable[[bytes], None], kind: str, words: Sequence[bytes]) -> int:
    """Bytes that stay behind after a round of examples, once another round has warmed up."""
    examples = _examples(kind, words, random.Random(1))
    for data in examples:
        target(data)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for data in _examples(kind, words, random.Random(2)):
            target(data)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def _examples(kind: str, words: Sequence[bytes], dice: random.Random) -> list[bytes]:
    found = seeds(kind)
    return [
        mutate(
            dice.choice(found),
            [
                (dice.randrange(5_000), dice.randrange(40), dice.randrange(4), dice.choice(words))
                for _ in range(dice.randrange(6))
            ],
        )
        for _ in range(ROUND)
    ]
