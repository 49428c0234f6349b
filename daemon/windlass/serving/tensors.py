"""Tensors in the words of the Open Inference Protocol: JSON values or bytes to numpy and back.

Pure; outside the eight hops, on the way of an inference request. Numbers are never bent to fit:
what a datatype cannot hold exactly enough (out of range, a fraction for an integer, true for 1) is
a TensorError that says which element and why.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import NoReturn

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
Shape = tuple[int, ...]

_LENGTH = struct.Struct("<I")


class TensorError(ValueError):
    """The data are not a tensor of that datatype and shape. The message is for people."""


@dataclass(frozen=True)
class Datatype:
    """One datatype of the protocol."""

    name: str
    dtype: np.dtype[np.generic]
    """How it lies in memory and in binary bodies: little-endian."""
    json_types: frozenset[type]
    """Types of the JSON elements that it takes."""
    takes: str
    """The same for people."""


def _datatypes() -> dict[str, Datatype]:
    boolean, text = frozenset({bool}), frozenset({str})
    integer, number = frozenset({int}), frozenset({int, float})
    found = [
        Datatype("BOOL", np.dtype("?"), boolean, "true or false"),
        Datatype("BYTES", np.dtype("O"), text, "a string"),
        *(
            Datatype(f"{prefix}{bits}", np.dtype(f"<{code}{bits // 8}"), integer, "a whole number")
            for prefix, code in (("INT", "i"), ("UINT", "u"))
            for bits in (8, 16, 32, 64)
        ),
        *(
            Datatype(f"FP{bits}", np.dtype(f"<f{bits // 8}"), number, "a number")
            for bits in (16, 32, 64)
        ),
    ]
    return {datatype.name: datatype for datatype in found}


DATATYPES: Mapping[str, Datatype] = _datatypes()


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model."""

    name: str
    datatype: str
    shape: Shape
    """-1 stands for any size."""
    any_rank: bool = False
    """The model file declares no shape at all, or a scalar: the runtime does not tell which."""

    def __str__(self) -> str:
        shape = "of any shape" if self.any_rank else list(self.shape)
        return f"{quoted(self.name)} {self.datatype} {shape}"

    def document(self) -> dict[str, object]:
        """As the protocol's model metadata says it."""
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives, in the model's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def document(self) -> dict[str, object]:
        """As the protocol's model metadata says it."""
        return {
            "inputs": [spec.document() for spec in self.inputs],
            "outputs": [spec.document() for spec in self.outputs],
        }


def quoted(value: object) -> str:
    """A JSON value for a message: short, on one line, printable."""
    text = json.dumps(value) if not isinstance(value, list | dict) else _kind(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _kind(value: object) -> str:
    if isinstance(value, list):
        return "an array"
    return "an object" if isinstance(value, dict) else quoted(value)


def from_json(data: object, datatype: Datatype, shape: Shape) -> Array:
    """Read the ``data`` member: nested like the shape, or flat in row-major order."""
    flat = _flatten(data, shape)
    odd = set(map(type, flat)) - datatype.json_types
    if odd:
        at = next(i for i, value in enumerate(flat) if type(value) in odd)
        found = _kind(flat[at])
        raise TensorError(f"element {at} is {found}; {datatype.name} takes {datatype.takes}")
    return _shaped(_pack(flat, datatype), shape)


def _flatten(data: object, shape: Shape) -> Sequence[object]:
    if not isinstance(data, list):
        if shape:
            raise TensorError(f"data is {_kind(data)}, not an array")
        return [data]
    count = prod(shape)
    if not (data and isinstance(data[0], list)):
        if len(data) != count:
            elements = f"{len(data)} element{'s' * (len(data) != 1)}"
            raise TensorError(f"data has {elements}; shape {list(shape)} needs {count}")
        return data
    if not shape or len(data) != shape[0]:
        raise TensorError(f"data is nested otherwise than shape {list(shape)} says")
    level: Sequence[object] = data
    for axis, size in enumerate(shape[1:], start=1):
        level = _unfold(level, axis, size)
    return level


def _unfold(rows: Sequence[object], axis: int, size: int) -> list[object]:
    """Put the rows of one axis behind each other; each must be an array of that size."""
    lists = [row for row in rows if isinstance(row, list)]
    if len(lists) == len(rows) and set(map(len, lists)) <= {size}:
        return list(chain.from_iterable(lists))
    for at, row in enumerate(rows):
        if not isinstance(row, list):
            raise TensorError(f"row {at} of axis {axis} is {_kind(row)}, not an array")
        if len(row) != size:
            raise TensorError(f"row {at} of axis {axis} has {len(row)} elements, not {size}")
    raise AssertionError("a row is neither right nor wrong")


def _pack(flat: Sequence[object], datatype: Datatype) -> Array:
    if datatype.name == "BYTES":
        return _texts(flat)
    try:
        with np.errstate(over="ignore"):
            packed: Array = np.array(flat, dtype=datatype.dtype)
    except OverflowError:
        _refuse_range(flat, datatype)
    if datatype.dtype.kind == "f" and not np.isfinite(packed.astype(np.float64)).all():
        _refuse_range(flat, datatype)
    return packed


def _refuse_range(flat: Sequence[object], datatype: Datatype) -> NoReturn:
    """Name the first element that the datatype cannot hold."""
    if datatype.dtype.kind == "f":
        floats = np.finfo(f"float{datatype.dtype.itemsize * 8}")
        low, high = float(floats.min), float(floats.max)
    else:
        integers = np.iinfo(datatype.name.lower())
        low, high = integers.min, integers.max
    for at, value in enumerate(flat):
        if isinstance(value, int | float) and not low <= value <= high:
            raise TensorError(
                f"element {at} is {quoted(value)}, out of the range of {datatype.name}"
                f" ({low} to {high})"
            )
    raise TensorError(f"an element is out of the range of {datatype.name}")


def _texts(flat: Sequence[object]) -> Array:
    packed = np.empty(len(flat), dtype=object)
    packed[:] = flat
    for at, value in enumerate(flat):
        try:
            str(value).encode()
        except UnicodeEncodeError:
            raise TensorError(
                f"element {at} is no Unicode text: it has half a surrogate pair"
            ) from None
    return packed


def _shaped(flat: Array, shape: Shape) -> Array:
    try:
        return flat.reshape(shape)
    except ValueError:
        raise TensorError(f"shape {list(shape)} is larger than a tensor can be") from None


def from_binary(data: memoryview, datatype: Datatype, shape: Shape) -> Array:
    """Read the binary tensor extension: little-endian, row-major; BYTES with lengths before."""
    if datatype.name == "BYTES":
        return _shaped(_texts_from_binary(data, prod(shape)), shape)
    need = prod(shape) * datatype.dtype.itemsize
    if len(data) != need:
        raise TensorError(
            f"binary_data_size is {len(data)}; {datatype.name} {list(shape)} needs {need} bytes"
        )
    if datatype.name == "BOOL" and bytes(data).translate(None, b"\0\1"):
        raise TensorError("a BOOL byte is neither 0 nor 1")
    # A copy, since a tensor in the middle of a body may begin at any address.
    return _shaped(np.frombuffer(data, dtype=datatype.dtype).copy(), shape)


def _texts_from_binary(data: memoryview, count: int) -> Array:
    texts: list[str] = []
    at = 0
    while at < len(data):
        start = at + _LENGTH.size
        if start > len(data):
            raise TensorError(f"binary BYTES end inside the length of element {len(texts)}")
        at = start + _LENGTH.unpack_from(data, at)[0]
        if at > len(data):
            raise TensorError(f"binary BYTES end inside element {len(texts)}")
        try:
            texts.append(str(data[start:at], "utf-8"))
        except UnicodeDecodeError:
            raise TensorError(
                f"element {len(texts)} is not UTF-8, and ONNX strings are UTF-8"
            ) from None
    if len(texts) != count:
        raise TensorError(f"binary BYTES hold {len(texts)} elements; the shape needs {count}")
    packed = np.empty(count, dtype=object)
    packed[:] = texts
    return packed


def to_json(array: Array) -> list[object]:
    """The ``data`` member, flat in row-major order. FP16 becomes numbers too."""
    flat: list[object] = array.ravel().tolist()
    return flat


def to_binary(array: Array, datatype: Datatype) -> bytes:
    """The binary tensor extension's bytes."""
    if datatype.name != "BYTES":
        return array.astype(datatype.dtype, copy=False).tobytes()
    texts = [str(text).encode() for text in array.ravel().tolist()]
    return b"".join(chain.from_iterable((_LENGTH.pack(len(text)), text) for text in texts))
