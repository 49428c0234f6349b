"""Bodies whose text was seen before are read as any other: same tensors, same refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.serving import decimals
from windlass.serving.moulds import Moulds
from windlass.serving.oip import OipError, parse_request
from windlass.serving.reading import Reader
from windlass.serving.tensors import Signature, TensorSpec

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", "FP32", (-1, 2)),))
DOUBLES = Signature((TensorSpec("x", "FP64", (-1, 3)),), SIGNATURE.outputs)
INTEGERS = Signature((TensorSpec("x", "INT8", (-1, 3)),), SIGNATURE.outputs)


@pytest.fixture(params=["compiled", "library"], scope="module", autouse=True)
def form(request: pytest.FixtureRequest) -> Iterator[str]:
    """Everything here holds with the compiled reader of numbers and without it."""
    assert decimals.floats is not None, "the tests need the compiled form (see .venv/install.log)"
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "library":
            patch.setattr(decimals, "floats", None)
        yield request.param


def body(data: str, shape: tuple[int, ...] = (1, 3), more: str = "", kind: str = "FP32") -> bytes:
    sizes = json.dumps(shape)
    entry = f'{{"name": "x", "shape": {sizes}, "datatype": "{kind}", "data": {data}{more}}}'
    return f'{{"inputs": [{entry}]}}'.encode()


def outcome(text: bytes, signature: Signature, reader: Reader | None = None) -> object:
    """What comes of it: values, outputs and timeout, or the refusal."""
    try:
        if reader is None:
            request = parse_request(text, signature)
            inputs, names, timeout = [request.inputs["x"]], request.names, request.timeout
        else:
            question = reader.read(text, None)
            inputs, wish = question.inputs, question.wish
            names, timeout = wish.names, wish.timeout
    except OipError as error:
        return str(error)
    (array,) = inputs
    return array.dtype.str, array.shape, array.tolist(), names, timeout


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32) | st.integers(-5, 5), max_size=9))
def test_other_numbers_in_a_known_text_are_read_as_by_the_long_way(numbers: list[float]) -> None:
    reader = Reader(SIGNATURE)
    for shape in ((1, 3), (2, 3), (3, 3)):
        known = [0.5] * shape[0] * shape[1]
        reader.read(body(json.dumps(known), shape), None)
        text = body(json.dumps(numbers), shape)
        assert outcome(text, SIGNATURE, reader) == outcome(text, SIGNATURE)


NUMBERS = ["[1, 2, 3]", "[[1, 2, 3]]"]
ODD = [
    "[4, 5]",
    "[4, 5, 6, 7]",
    "[4, 5, true]",
    '[4, 5, "6"]',
    "[4, 5, null]",
    "[4, 5, 1e39]",
    "[4, 5, 1e400]",
    "[4, 5, NaN]",
    "[4, 5, 06]",
    "[4, 5, 6,]",
    "[4, 5 6]",
    "[4, [5], 6]",
    "[[4, 5], [6]]",
    "[[4], [5], [6]]",
    "[[4, 5, 6]]",
    "[[[4, 5, 6]]]",
    "[]",
    "[[]]",
    "4",
    '"]"',
    "[4, 5, 6], [7]",
    '[4, 5, 6], "data": [7, 8, 9]',
    "[4, 5, 6]]",
    "[4.5, 5, 6]",
    "[400, 5, 6]",
    "[18446744073709551615, 5, 6]",
    "[123456789012345678901234567890, 5, 6]",
]


@pytest.mark.parametrize("first", NUMBERS)
@pytest.mark.parametrize("signature", [SIGNATURE, DOUBLES, INTEGERS], ids=["FP32", "FP64", "INT8"])
@pytest.mark.parametrize("data", ODD)
def test_what_is_odd_is_refused_or_taken_as_by_the_long_way(
    data: str, signature: Signature, first: str
) -> None:
    kind = signature.inputs[0].datatype
    reader = Reader(signature)
    reader.read(body(first, kind=kind), None)
    text = body(data, kind=kind)
    assert outcome(text, signature, reader) == outcome(text, signature)


@pytest.mark.parametrize(
    "text",
    [
        '{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": %s,'
        ' "data": [7, 8, 9]}]}',
        '{"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [7, 8, 9],'
        ' "data": %s}]}',
        '{"parameters": {"data": %s}, "inputs": [{"name": "x", "shape": [1, 3],'
        ' "datatype": "FP32", "data": [7, 8, 9]}]}',
        '{"inputs": [{"parameters": {"data": %s}, "name": "x", "shape": [1, 3],'
        ' "datatype": "FP32", "data": [7, 8, 9]}]}',
        '{"parameters": {"a": "\\"data\\": %s"}, "inputs": [{"name": "x", "shape": [1, 3],'
        ' "datatype": "FP32", "data": [7, 8, 9]}]}',
        '{"inputs": [{"data": %s, "name": "x", "shape": [1, 3], "datatype": "FP32"}],'
        ' "outputs": [{"name": "y"}], "parameters": {"timeout": 5000000}}',
    ],
)
def test_only_the_numbers_that_count_are_looked_at(text: str) -> None:
    reader = Reader(SIGNATURE)
    for data in ("[1, 2, 3]", "[4, 5, 6]", "[0, 0, 1]"):
        sent = (text % data).encode()
        assert outcome(sent, SIGNATURE, reader) == outcome(sent, SIGNATURE)


def test_a_known_text_is_found_and_another_is_not() -> None:
    moulds: Moulds[str] = Moulds()
    moulds.remember(body("[1, 2, 3]"), 1, "three")
    text = body("[4, 5, 6]")
    found = moulds.find(text)
    assert found is not None
    start, end, meaning = found
    assert (text[start:end], meaning) == (b"[4, 5, 6]", "three")
    assert moulds.find(body("[4, 5, 6]", (2, 3))) is None
    assert moulds.find(body("[4, 5, 6]", more=', "parameters": {}')) is None
    assert moulds.find(b"") is None


def test_an_id_is_answered_with_itself() -> None:
    reader = Reader(SIGNATURE)
    for name in ("a", "b", None):
        document = json.loads(body("[1, 2, 3]")) | ({"id": name} if name else {})
        assert reader.read(json.dumps(document).encode(), None).wish.id == name


def test_the_tensor_is_the_model_s_type() -> None:
    reader = Reader(SIGNATURE)
    for _ in range(2):
        (array,) = reader.read(body("[1, 2, 3]"), None).inputs
        assert array.dtype == np.float32
