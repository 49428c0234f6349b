"""Bytes that need no look go to the model as they came, and rows come back one by one."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from windlass.serving.batch import Ask, Batch, run
from windlass.serving.http import BINARY, JSON
from windlass.serving.reading import Question, Reader
from windlass.serving.tensors import Array, Signature, TensorSpec
from windlass.serving.writing import Labels, written

SIGNATURE = Signature((TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", "FP32", (-1, 3)),))


class Double:
    """Stands in for a model: twice what comes in."""

    def __init__(self) -> None:
        self.batches = True
        self.seen: list[Array] = []

    def clock(self) -> float:
        return 0.0

    def run(self, inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        assert list(outputs) == ["y"]
        assert all(each.flags.aligned for each in inputs)
        self.seen.append(inputs[0])
        return [inputs[0] * 2]


class Asked(Ask):
    """Only asks."""

    def done(self, batch: Batch, start: int, stop: int) -> None:
        raise AssertionError("nobody answers here")

    def fail(self, status: int, message: str) -> None:
        raise AssertionError("nobody answers here")


def body(rows: Array, *, binary: bool = True, identity: str | None = None) -> tuple[bytes, int]:
    """A request with binary tensors, and the length of its JSON."""
    size = {"binary_data_size": rows.nbytes}
    entry = {"name": "x", "shape": list(rows.shape), "datatype": "FP32", "parameters": size}
    document: dict[str, object] = {"inputs": [entry]}
    if identity is not None:
        document["id"] = identity
    document["parameters"] = {"binary_data_output": binary}
    head = json.dumps(document).encode()
    return head + rows.tobytes(), len(head)


def rows_of(*values: float) -> Array:
    return np.array([[value, value + 0.5, -value] for value in values], np.float32)


def ask(question: Question) -> Ask:
    return Asked(question, gathers=True, arrived=0.0)


def read(reader: Reader, rows: Array, **how: object) -> Question:
    return reader.read(*body(rows, **how))  # type: ignore[arg-type]  # binary and identity


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 1, 3), (1,), (0, 2)])
def test_requests_of_any_size_meet_in_one_array_in_their_order(sizes: Sequence[int]) -> None:
    reader, model = Reader(SIGNATURE), Double()
    parts = [rows_of(*range(at * 10, at * 10 + size)) for at, size in enumerate(sizes)]
    parts = [part.reshape(-1, 3) for part in parts]
    for part in parts:
        read(reader, part)
    questions = [read(reader, part) for part in parts]
    assert all(
        question.raw or not part.size for question, part in zip(questions, parts, strict=True)
    )
    together = [each for each in questions if each.wish.rows]
    outcome = run(model, list(map(ask, together)))  # type: ignore[arg-type]  # a model's double
    assert isinstance(outcome, Batch)
    assert model.seen[0].tolist() == np.concatenate(parts).tolist()
    for question, part in zip(questions, parts, strict=True):
        assert question.inputs[0].tolist() == part.tolist()


def test_bytes_and_json_run_together() -> None:
    reader, model = Reader(SIGNATURE), Double()
    read(reader, rows_of(1))
    raw = read(reader, rows_of(1))
    entry = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [4, 5, 6]}
    text = reader.read_json(json.dumps({"inputs": [entry]}).encode())
    assert raw.raw
    assert not text.raw
    assert raw.wish.key == text.wish.key
    outcome = run(model, [ask(text), ask(raw)])  # type: ignore[arg-type]  # a model's double
    assert isinstance(outcome, Batch)
    assert model.seen[0].tolist() == [[4, 5, 6], [1, 1.5, -1]]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("identity", [None, "7"])
def test_each_gets_its_own_row(binary: bool, identity: str | None) -> None:
    reader, model, labels = Reader(SIGNATURE), Double(), Labels("m", "v")
    values = [1.0, 2.0, 3.0]
    questions = [read(reader, rows_of(v), binary=binary, identity=identity) for v in values]
    odd = read(reader, rows_of(9), binary=not binary)
    outcome = run(model, [ask(each) for each in (*questions, odd)])  # type: ignore[arg-type]  # a double
    assert isinstance(outcome, Batch)
    for at, question in enumerate((*questions, odd)):
        wanted = (rows_of((*values, 9.0)[at]) * 2).tolist()
        reply = written(labels, question, outcome, at, at + 1)
        is_binary = binary if question is not odd else not binary
        assert reply.content_type == (BINARY if is_binary else JSON)
        length = reply.json_length or len(reply.body)
        document = json.loads(reply.body[:length])
        assert document.get("id") == (identity if question is not odd else None)
        (output,) = document["outputs"]
        assert (output["name"], output["shape"]) == ("y", [1, 3])
        if is_binary:
            assert output["parameters"] == {"binary_data_size": 12}
            got = np.frombuffer(reply.body[length:], np.float32).reshape(1, 3).tolist()
        else:
            got = np.reshape(output["data"], (1, 3)).tolist()
        assert got == wanted


def test_rows_without_elements_have_an_answer_too() -> None:
    signature = Signature((TensorSpec("x", "FP32", (-1, 3)),), (TensorSpec("y", "FP32", (-1, 0)),))
    question = read(Reader(signature), rows_of(1, 2))
    one = read(Reader(signature), rows_of(1))
    batch = Batch([np.zeros((3, 0), np.float32)], 3, 0.0, 0.0, 0.0)
    for asked, start, stop in ((question, 0, 2), (one, 2, 3)):
        reply = written(Labels("m", "v"), asked, batch, start, stop)
        (output,) = json.loads(reply.body)["outputs"]
        assert output["shape"] == [stop - start, 0]
