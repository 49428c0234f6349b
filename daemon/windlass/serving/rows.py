"""Simpler bodies than OIP v2: the V1 form of TensorFlow Serving, CSV and lines of text.

Outside the eight hops. All of them say rows and leave types and shapes to the model:
``{"instances": [...]}`` gives ``{"predictions": [...]}``, ``{"inputs": {...}}`` gives
``{"outputs": {...}}``, ``text/csv`` gives ``text/csv``, and ``text/plain`` is one text a line.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from windlass.serving.batch import Batch
from windlass.serving.http import Reply, json_reply
from windlass.serving.oip import OipError, WantedOutput, check_shape, read_document
from windlass.serving.reading import Question, asked
from windlass.serving.served import Served
from windlass.serving.tensors import (
    DATATYPES,
    Array,
    Signature,
    TensorError,
    TensorSpec,
    from_json,
    quoted,
)

CSV = "text/csv"
TEXT = "text/plain"
_MAX_RANK = 32


@dataclass
class RowsForm:
    """The V1 form. One object for each request: the answer has the form of the question."""

    columns: bool = field(default=False, init=False)

    def read(self, served: Served, body: bytes) -> Question:
        document = read_document(body)
        signature = served.model.signature
        self.columns = "instances" not in document
        if not self.columns:
            return _question(signature, _by_name(signature, document["instances"]))
        given = document.get("inputs")
        if given is None:
            raise OipError('the member "instances" is missing; send {"instances": [ROW, ...]}')
        named = given if isinstance(given, dict) else {_only(signature).name: given}
        return _question(signature, named)

    def write(
        self, served: Served, question: Question, batch: Batch, start: int, stop: int
    ) -> Reply:
        results = batch.part(start, stop)
        named = dict(zip(question.wish.names, (each.tolist() for each in results), strict=True))
        single = results[0].tolist() if len(results) == 1 else None
        if self.columns:
            return json_reply(200, {"outputs": single if single is not None else named})
        if single is not None:
            return json_reply(200, {"predictions": single})
        sizes = {each.shape[0] for each in results if each.ndim}
        if len(sizes) != 1 or not all(each.ndim for each in results):
            return json_reply(200, {"predictions": named})
        rows = [dict(zip(named, row, strict=True)) for row in zip(*named.values(), strict=True)]
        return json_reply(200, {"predictions": rows})


@dataclass(frozen=True)
class LinesForm:
    """CSV, or one text a line."""

    content_type: str

    def read(self, served: Served, body: bytes) -> Question:
        signature = served.model.signature
        spec = _only(signature)
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            raise OipError(f"the body is not UTF-8 text: byte {error.start}") from None
        lines: list[list[str]] = (
            [[line] for line in text.splitlines()]
            if self.content_type == TEXT
            else [row for row in csv.reader(io.StringIO(text)) if row]
        )
        values = [_values(spec, at, line) for at, line in enumerate(lines)]
        flat = len(spec.shape) == 1 and not spec.any_rank
        if flat and any(len(row) != 1 for row in values):
            raise OipError("the model takes one value a row")
        return _question(signature, {spec.name: [row[0] for row in values] if flat else values})

    def write(
        self, served: Served, question: Question, batch: Batch, start: int, stop: int
    ) -> Reply:
        results = batch.part(start, stop)
        rows = [each.reshape(each.shape[0] if each.ndim else 1, -1).tolist() for each in results]
        out = io.StringIO()
        lines = csv.writer(out, lineterminator="\n")
        for parts in zip(*rows, strict=False):
            lines.writerow([value for part in parts for value in part])
        return Reply(200, out.getvalue().encode(), CSV)


def _only(signature: Signature) -> TensorSpec:
    if len(signature.inputs) != 1:
        names = ", ".join(spec.name for spec in signature.inputs)
        raise OipError(f"the model takes {len(signature.inputs)} inputs; name each one: {names}")
    return signature.inputs[0]


def _by_name(signature: Signature, instances: object) -> Mapping[str, object]:
    if not isinstance(instances, list) or not instances:
        raise OipError(f"instances is {quoted(instances)}; send an array of rows")
    if not isinstance(instances[0], dict):
        return {_only(signature).name: instances}
    columns: dict[str, list[object]] = {spec.name: [] for spec in signature.inputs}
    for at, row in enumerate(instances):
        if not isinstance(row, dict) or set(row) != set(columns):
            names = ", ".join(columns)
            raise OipError(f"instances[{at}] must be an object of {names}, as the others")
        for name, value in row.items():
            columns[name].append(value)
    return columns


def _question(signature: Signature, given: Mapping[str, object]) -> Question:
    specs = {spec.name: spec for spec in signature.inputs}
    if set(given) != set(specs):
        raise OipError(f"the model takes {', '.join(map(str, signature.inputs))}")
    inputs = [_tensor(spec, given[spec.name]) for spec in signature.inputs]
    outputs = tuple(WantedOutput(spec, binary=False) for spec in signature.outputs)
    return asked(None, inputs, outputs)


def _tensor(spec: TensorSpec, data: object) -> Array:
    sizes: list[int] = []
    level = data
    while isinstance(level, list) and len(sizes) <= _MAX_RANK:
        sizes.append(len(level))
        level = level[0] if level else None
    try:
        shape = check_shape(sizes, spec)
        return from_json(data, DATATYPES[spec.datatype], shape)
    except TensorError as error:
        message = f"input {quoted(spec.name)}: {error}; the model takes {spec}"
        raise OipError(message) from None


def _values(spec: TensorSpec, at: int, fields: Sequence[str]) -> list[object]:
    if spec.datatype == "BYTES":
        return list(fields)
    try:
        values: list[object] = [json.loads(text) for text in fields]
    except ValueError:
        raise OipError(f"line {at + 1} has something that is no number") from None
    return values
