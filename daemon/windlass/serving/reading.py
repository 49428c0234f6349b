"""Request bodies to tensors, quickly: the common ways on a short path, the rest through ``oip``.

Outside the eight hops. The short path takes only what ``oip`` would take, and gives the same; in
any doubt it stands back, and ``oip`` reads the body again and says what is wrong, if anything is.
Two kinds of body are short: JSON whose numbers SIMD code puts straight into a tensor, and binary
tensors behind a JSON header that was seen before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

import numpy as np

from windlass.serving.oip import WantedOutput, parse_request
from windlass.serving.tensors import DATATYPES, Array, Shape, Signature, TensorSpec

try:
    import simdjson
except ImportError:  # a machine without a wheel: the long path reads everything
    simdjson = None  # type: ignore[assignment]  # looked at before each use

_TEMPLATES = 256
"""JSON headers that are remembered for each model."""
_LONGEST_TEMPLATE = 4096
_LARGEST = 1 << 20
"""Bytes of JSON that the short path takes; its parser keeps memory for the largest ever seen."""
_BUFFERS: Mapping[str, tuple[Literal["d", "i", "u"], np.dtype[np.generic]]] = {
    "f": ("d", np.dtype("f8")),
    "i": ("i", np.dtype("i8")),
    "u": ("u", np.dtype("u8")),
}
_SQUARES = {2: 1e9, 4: 1e76}
"""Squares of numbers that floats of that many bytes hold."""


@dataclass(slots=True)
class Question:
    """A request that fits the model's signature."""

    id: str | None
    inputs: list[Array]
    """In the model's order."""
    outputs: tuple[WantedOutput, ...]
    names: tuple[str, ...]
    """Of the outputs."""
    timeout: float | None = None
    """Seconds that the client is willing to wait in the queue."""


@dataclass(frozen=True)
class _Template:
    """A JSON header of the binary extension that was read once."""

    slices: tuple[tuple[np.dtype[np.generic], Shape, int, int], ...]
    """Type, shape, number of elements and offset of each input."""
    length: int
    question: Question


class Reader:
    """Reads requests of one loaded model. Lives in the event loop."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._specs = {spec.name: (at, spec) for at, spec in enumerate(signature.inputs)}
        self._outputs = tuple(WantedOutput(spec, binary=False) for spec in signature.outputs)
        self._names = tuple(spec.name for spec in signature.outputs)
        self._templates: dict[bytes, _Template] = {}
        self._shapes: dict[tuple[int, str], Shape] = {}
        self._parser = simdjson.Parser() if simdjson is not None else None

    def read(self, body: bytes, json_length: int | None) -> Question:
        """Read one body. Raises OipError."""
        if json_length is None:
            found = self._short_json(body) if len(body) <= _LARGEST else None
            return found or self._long(body, None)
        head = body[:json_length] if 0 < json_length <= _LONGEST_TEMPLATE else b""
        template = self._templates.get(head)
        if template is not None and len(body) == json_length + template.length:
            return _filled(template, body, json_length)
        question = self._long(body, json_length)
        if head:
            self._remember(head, question, len(body) - json_length)
        return question

    def _long(self, body: bytes, json_length: int | None) -> Question:
        request = parse_request(body, self._signature, json_length)
        inputs = [request.inputs[spec.name] for spec in self._signature.inputs]
        return Question(request.id, inputs, request.outputs, request.names, request.timeout)

    def _short_json(self, body: bytes) -> Question | None:
        """The question, or None where the long path must look."""
        if self._parser is None:
            return None
        try:
            return self._from_document(self._parser.parse(body), self._is_flat(body))
        except (ValueError, TypeError, KeyError):
            return None
        except RuntimeError:  # something still holds the last document
            self._parser = simdjson.Parser()
            return None

    def _is_flat(self, body: bytes) -> bool:
        """Whether there are brackets only for the list of inputs, and each shape and data."""
        at = -1
        for _ in range(1 + 2 * len(self._specs)):
            at = body.find(b"[", at + 1)
        return body.find(b"[", at + 1) == -1

    def _from_document(self, document: object, flat: bool) -> Question | None:
        if not isinstance(document, simdjson.Object):
            return None
        identity: object = None
        entries = document["inputs"]
        if len(document) != 1:
            identity = document["id"]
            if len(document) != 2 or not isinstance(identity, str):
                return None
        if not isinstance(entries, simdjson.Array) or len(entries) != len(self._specs):
            return None
        found: dict[int, Array] = {}
        for entry in entries:
            at, array = self._input(entry, flat)
            if array is None or at in found:
                return None
            found[at] = array
        inputs = list(found.values()) if len(found) == 1 else [found[at] for at in sorted(found)]
        return Question(identity, inputs, self._outputs, self._names)  # type: ignore[arg-type]  # a str or None

    def _input(self, entry: object, flat: bool) -> tuple[int, Array | None]:
        if not isinstance(entry, simdjson.Object) or len(entry) != 4:
            return -1, None
        at, spec = self._specs[entry["name"]]  # type: ignore[index]  # a KeyError or TypeError
        data, sizes = entry["data"], entry["shape"]
        if not isinstance(sizes, simdjson.Array) or not isinstance(data, simdjson.Array):
            return -1, None
        shape = self._shape(at, sizes)
        if shape is None or entry["datatype"] != spec.datatype:
            return -1, None
        if not flat and not _is_table(data, shape):
            return -1, None
        return at, _numbers(data, spec, shape)

    def _shape(self, at: int, sizes: simdjson.Array) -> Shape | None:
        """The shape, if it is right for that input; remembered by its text, since few differ."""
        text = at, sizes.mini
        shape = self._shapes.get(text)
        if shape is None:
            spec, values = self._signature.inputs[at], sizes.as_list()
            if not _fits(values, spec):
                return None
            if len(self._shapes) >= _TEMPLATES:
                self._shapes.clear()
            self._shapes[text] = shape = tuple(size for size in values if isinstance(size, int))
        return shape

    def _remember(self, head: bytes, question: Question, length: int) -> None:
        slices = []
        offset = 0
        for array in question.inputs:
            if array.dtype.kind not in "fiu":
                return  # BOOL and BYTES are looked at element by element
            slices.append((array.dtype, array.shape, array.size, offset))
            offset += array.nbytes
        if offset != length or (len(slices) > 1 and not self._in_order(head)):
            return  # some data are in the JSON, or the inputs come in another order
        if len(self._templates) >= _TEMPLATES:
            self._templates.clear()
        bare = replace(question, inputs=[])
        self._templates[head] = _Template(tuple(slices), length, bare)

    def _in_order(self, head: bytes) -> bool:
        names = [each["name"] for each in json.loads(head)["inputs"]]
        return names == [spec.name for spec in self._signature.inputs]


def _filled(template: _Template, body: bytes, start: int) -> Question:
    arrays: list[Array] = []
    for dtype, shape, count, offset in template.slices:
        array = np.frombuffer(body, dtype, count, start + offset).reshape(shape)
        # The runtime wants numbers where the processor can read them in one go.
        arrays.append(array if array.flags.aligned else array.copy())
    bare = template.question
    return Question(bare.id, arrays, bare.outputs, bare.names, bare.timeout)


def _fits(shape: Sequence[object], spec: TensorSpec) -> bool:
    return (
        len(shape) == len(spec.shape)
        and not spec.any_rank
        and all(
            type(size) is int and (size == wanted or (wanted == -1 and size >= 0))
            for size, wanted in zip(shape, spec.shape, strict=True)
        )
    )


def _is_table(data: simdjson.Array, shape: Shape) -> bool:
    """Whether the data are rows of numbers as the shape says; deeper nesting is for others."""
    return (
        len(shape) == 2
        and len(data) == shape[0]
        and all(
            isinstance(row, simdjson.Array)
            and len(row) == shape[1]
            and not (shape[1] and isinstance(row[0], simdjson.Array))
            for row in data
        )
    )


def _numbers(data: simdjson.Array, spec: TensorSpec, shape: Shape) -> Array | None:
    """The tensor, or None when the numbers may not fit its datatype exactly enough."""
    dtype = DATATYPES[spec.datatype].dtype
    if dtype.kind not in _BUFFERS:
        return None
    code, widest = _BUFFERS[dtype.kind]
    wide = np.frombuffer(data.as_buffer(of_type=code), widest)
    if wide.size != prod(shape):
        return None
    if dtype.itemsize == 8:
        return wide.reshape(shape)
    # The sum of squares is small only where each number is: one look for all of them.
    if dtype.kind == "f" and not wide.dot(wide) < _SQUARES[dtype.itemsize]:
        return None
    array = wide.astype(dtype)
    return array.reshape(shape) if dtype.kind == "f" or (array == wide).all() else None
