"""Answers written for a whole batch are those that each request would get by the long way."""

from __future__ import annotations

import json
from itertools import product

import numpy as np
import pytest

from windlass.serving.batch import Batch
from windlass.serving.oip import InferenceRequest, WantedOutput, encode_response
from windlass.serving.reading import asked
from windlass.serving.tensors import Array, TensorSpec
from windlass.serving.writing import Labels, written

ROWS = 5
CHANCE = np.random.default_rng(3)
RESULTS: dict[str, Array] = {
    "FP32": CHANCE.normal(size=(ROWS, 3)).astype("f4"),
    "FP64": CHANCE.normal(size=(ROWS, 2, 2)),
    "INT64": CHANCE.integers(-(2**60), 2**60, (ROWS,)),
    "BOOL": CHANCE.integers(0, 2, (ROWS, 2)).astype(bool),
    "FP16": CHANCE.normal(size=(ROWS, 1)).astype("f2"),
    "BYTES": np.array([["a"], ["é"], [""], ["\u2028"], ['"']], dtype=object),
}
WAYS = {"json": (False,), "binary": (True,), "mixed": (True, False)}


def document(body: bytes, length: int | None) -> tuple[object, bytes]:
    """The JSON, and the bytes after it."""
    return json.loads(body[:length]), body[length:] if length is not None else b""


@pytest.mark.parametrize("identity", [None, "a", 'ü"'])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kinds", [*((kind,) for kind in RESULTS), ("FP32", "INT64", "FP64")])
def test_each_part_of_a_batch(kinds: tuple[str, ...], way: str, identity: str | None) -> None:
    results = [RESULTS[kind] for kind in kinds]
    outputs = tuple(
        WantedOutput(TensorSpec(f"y{at}", kind, (-1,)), binary)
        for at, (kind, binary) in enumerate(zip(kinds, WAYS[way] * 3, strict=False))
    )
    batch = Batch(results, ROWS, 0.0, 0.0, 0.0)
    labels = Labels("m", "v")
    question = asked(identity, [np.zeros((1, 1), "f4")], outputs)
    request = InferenceRequest(identity, {}, outputs)
    for start, stop in [(0, 1), (1, 2), (4, 5), (1, 3), (0, ROWS)]:
        reply = written(labels, question, batch, start, stop)
        wanted = encode_response(request, batch.part(start, stop), "m", "v")
        got, expected = (document(each.body, each.json_length) for each in (reply, wanted))
        assert got[1] == expected[1]
        assert _close(got[0], expected[0]), (got, expected)


def test_a_request_that_runs_alone_has_all_of_the_results() -> None:
    """Also where the model's first axis is no batch axis."""
    labels = Labels("m", "v")
    for binary, shape in product((False, True), [(3, 2), (1, 4), (2,)]):
        outputs = (WantedOutput(TensorSpec("y", "FP32", shape), binary),)
        batch = Batch([CHANCE.normal(size=shape).astype("f4")], 1, 0.0, 0.0, 0.0)
        question = asked(None, [np.zeros((1, 1), "f4")], outputs)
        reply = written(labels, question, batch, 0, 1)
        wanted = encode_response(InferenceRequest(None, {}, outputs), batch.results, "m", "v")
        got, expected = (document(each.body, each.json_length) for each in (reply, wanted))
        assert got[1] == expected[1]
        assert _close(got[0], expected[0]), (got, expected)


def _close(one: object, other: object) -> bool:
    """Equal, but for how many digits a float is written with."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_close, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return bool(np.float32(one) == np.float32(other))
    return one == other
