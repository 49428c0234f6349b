"""Numbers of a JSON array into one tensor, by SIMD code: what one input of one shape needs for it.

Outside the eight hops. A slot is made once for each shape that is asked for, and filled by each
request. It takes only what ``tensors`` would take; where it may be otherwise it gives nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Literal

import numpy as np

from windlass.serving import decimals
from windlass.serving.tensors import DATATYPES, Array, Shape, TensorSpec

if TYPE_CHECKING:
    import simdjson

_BUFFERS: Mapping[str, tuple[Literal["d", "i", "u"], np.dtype[np.generic]]] = {
    "f": ("d", np.dtype("f8")),
    "i": ("i", np.dtype("i8")),
    "u": ("u", np.dtype("u8")),
}
_SQUARES = {2: 1e9, 4: 1e76}
"""Squares of numbers that floats of that many bytes hold."""


class Slot:
    """Takes the numbers of one input."""

    __slots__ = ("_code", "_dtype", "_size", "_square", "_widest", "packs", "shape")

    def __init__(self, spec: TensorSpec, shape: Shape) -> None:
        dtype = DATATYPES[spec.datatype].dtype
        self.shape = shape
        self._dtype = dtype
        self._size = prod(shape)
        self._code: Literal["d", "i", "u"] | None
        self._code, self._widest = _BUFFERS.get(dtype.kind, (None, dtype))
        self._square = _SQUARES.get(dtype.itemsize, np.inf) if dtype.kind == "f" else np.inf
        """Of the largest number that is surely in the range of the datatype."""
        self.packs = decimals.floats is not None and dtype == np.float32
        """Whether ``read`` gives bytes of the datatype, and not an array of wider numbers."""

    def read(
        self, parser: simdjson.Parser, body: bytes, start: int, end: int
    ) -> bytes | Array | None:
        """All numbers of the array that is there in a body; None when they may not fit."""
        if self.packs and decimals.floats is not None:
            found = decimals.floats(body, start, self._size)
            if found is not None and found[1] == end:
                return found[0]
        wide = self.take(parser.parse(body[start:end]))  # type: ignore[arg-type]  # it begins with a bracket
        if self.packs and wide is not None:
            return wide.astype(self._dtype).tobytes()
        return wide

    def take(self, data: simdjson.Array) -> Array | None:
        """All numbers, in a row and in a wider datatype; None when they may not fit its own."""
        if self._code is None:
            return None
        wide: Array = np.frombuffer(data.as_buffer(of_type=self._code), self._widest)
        if wide.size != self._size:
            return None
        if self._dtype is self._widest:
            return wide
        # The sum of squares is small only where each number is: one look for all of them.
        if self._code == "d":
            return wide if wide.dot(wide) < self._square else None
        return wide if (wide.astype(self._dtype) == wide).all() else None

    def fill(self, data: simdjson.Array) -> Array | None:
        """The tensor, or None when the numbers may not fit its datatype exactly enough."""
        wide = self.take(data)
        return None if wide is None else wide.astype(self._dtype, copy=False).reshape(self.shape)
