"""Request bodies to tensors, quickly: the common ways on a short path, the rest through ``oip``.

Outside the eight hops. The short path takes only what ``oip`` would take, and gives the same; in
any doubt it stands back, and ``oip`` reads the body again and says what is wrong, if anything is.
Short are JSON whose numbers SIMD code puts straight into a tensor, the more so if the text around
the numbers was seen before, and binary tensors behind a JSON header that was seen before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import numpy as np

from windlass.serving.moulds import Moulds
from windlass.serving.oip import WantedOutput, parse_request
from windlass.serving.slots import Slot
from windlass.serving.tensors import Array, Shape, Signature, TensorSpec

try:
    import simdjson
except ImportError:  # a machine without a wheel: the long path reads everything
    simdjson = None  # type: ignore[assignment]  # looked at before each use

_TEMPLATES = 256
"""JSON headers that are remembered for each model."""
_LONGEST_TEMPLATE = 4096
_LARGEST = 1 << 20
"""Bytes of JSON that the short path takes; its parser keeps memory for the largest ever seen."""


class Layout(NamedTuple):
    """How one input comes, whose rows need no more than to be put one after the other."""

    dtype: np.dtype[np.generic]
    shape: Shape
    """Of a row."""
    numbers: bool
    """Whether it comes as an array of wider numbers, which all fit; else as bytes."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A request but for its numbers: many have the same."""

    id: str | None
    outputs: tuple[WantedOutput, ...]
    names: tuple[str, ...]
    """Of the outputs."""
    timeout: float | None
    """Seconds that the client is willing to wait in the queue."""
    rows: int
    """Size of the first axis of every input; 0 if they differ."""
    key: object
    """Equal where requests can run together, as far as the first axis is a batch axis."""
    all_json: bool
    """Whether no output is wanted as a binary tensor."""
    all_binary: bool
    layout: Layout | None = None
    """Of the one input, if it is kept raw until it runs."""

    def together(self, raws: Sequence[bytes | Array], rows: int) -> Array:
        """The one input of several requests with this wish, as they came."""
        assert self.layout is not None
        dtype, shape, numbers = self.layout
        if numbers:
            wide = cast("Sequence[Array]", raws)
            flat = np.concatenate(wide, dtype=dtype, casting="same_kind")
        else:
            # The bytes of a bytes object lie where the processor can read them in one go.
            flat = np.frombuffer(b"".join(cast("Sequence[bytes]", raws)), dtype)
        return flat.reshape((rows, *shape))


class Question:
    """A request that fits the model's signature."""

    __slots__ = ("_inputs", "raw", "wish")

    def __init__(
        self, wish: Wish, inputs: list[Array] | None = None, raw: bytes | Array = b""
    ) -> None:
        self.wish = wish
        self._inputs = inputs
        self.raw = raw
        """The one input as it came, if the wish has a layout."""

    @property
    def inputs(self) -> list[Array]:
        """In the model's order."""
        if self._inputs is None:
            self._inputs = [self.wish.together([self.raw], self.wish.rows)]
        return self._inputs


def asked(
    identity: str | None,
    inputs: list[Array],
    outputs: tuple[WantedOutput, ...],
    timeout: float | None = None,
) -> Question:
    """A question whose wish is not known yet."""
    sizes = {each.shape[0] if each.ndim else 0 for each in inputs}
    rows = sizes.pop() if len(sizes) == 1 else 0
    names = tuple(wanted.spec.name for wanted in outputs)
    key = (names, *(each.shape[1:] for each in inputs)) if rows else None
    binary = [wanted.binary for wanted in outputs]
    ways = not any(binary), all(binary)
    return Question(Wish(identity, outputs, names, timeout, rows, key, *ways), inputs)


@dataclass(frozen=True, slots=True)
class _Template:
    """A JSON header of the binary extension that was read once."""

    slices: tuple[tuple[np.dtype[np.generic], Shape, int, int], ...]
    """Type, shape, number of elements and offset of each input; none if the wish has a layout."""
    length: int
    wish: Wish


class Reader:
    """Reads requests of one loaded model. Lives in the event loop."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._specs = {spec.name: (at, spec) for at, spec in enumerate(signature.inputs)}
        self._outputs = tuple(WantedOutput(spec, binary=False) for spec in signature.outputs)
        self._templates: dict[bytes, _Template] = {}
        self._slots: dict[tuple[int, str], Slot] = {}
        self._moulds: Moulds[tuple[Slot, Wish]] = Moulds()
        self._parser = simdjson.Parser() if simdjson is not None else None

    def read(self, body: bytes, json_length: int | None) -> Question:
        """Read one body. Raises OipError."""
        if json_length is None:
            return self.read_json(body)
        head = body[:json_length] if 0 < json_length <= _LONGEST_TEMPLATE else b""
        template = self._templates.get(head)
        if template is not None and len(body) == json_length + template.length:
            return _filled(template, body, json_length)
        question = self._long(body, json_length)
        if head:
            self._remember(head, question, len(body) - json_length)
        return question

    def read_json(self, body: bytes) -> Question:
        """Read one body without binary tensors. Raises OipError."""
        if len(body) > _LARGEST or self._parser is None:
            return self._long(body, None)
        known = self._moulds.find(body)
        try:
            if known is not None:
                start, end, (slot, wish) = known
                raw = slot.read(self._parser, body, start, end)
                if raw is not None:
                    return Question(wish, None, raw)
            question = self._from_document(self._parser.parse(body), self._is_flat(body))
        except (ValueError, TypeError, KeyError):
            question = None
        except RuntimeError:  # something still holds the last document
            self._parser, question = simdjson.Parser(), None
        question = question or self._long(body, None)
        if known is None and question.wish.id is None:
            self._learn(body, question)
        return question

    def _learn(self, body: bytes, question: Question) -> None:
        """Know the text around the numbers again."""
        array, wish = question.inputs[0], question.wish
        if len(question.inputs) == 1 and array.dtype.kind in "fiu" and array.ndim:
            slot = Slot(self._signature.inputs[0], array.shape)
            wish = replace(wish, layout=Layout(array.dtype, array.shape[1:], not slot.packs))
            self._moulds.remember(body, wish.rows, (slot, wish))

    def _long(self, body: bytes, json_length: int | None) -> Question:
        request = parse_request(body, self._signature, json_length)
        inputs = [request.inputs[spec.name] for spec in self._signature.inputs]
        return asked(request.id, inputs, request.outputs, request.timeout)

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
        return asked(identity, inputs, self._outputs)  # type: ignore[arg-type]  # a str or None

    def _input(self, entry: object, flat: bool) -> tuple[int, Array | None]:
        if not isinstance(entry, simdjson.Object) or len(entry) != 4:
            return -1, None
        at, spec = self._specs[entry["name"]]  # type: ignore[index]  # a KeyError or TypeError
        data, sizes = entry["data"], entry["shape"]
        if not isinstance(sizes, simdjson.Array) or not isinstance(data, simdjson.Array):
            return -1, None
        slot = self._slot(at, sizes)
        if slot is None or entry["datatype"] != spec.datatype:
            return -1, None
        if not flat and not _is_table(data, slot.shape):
            return -1, None
        return at, slot.fill(data)

    def _slot(self, at: int, sizes: simdjson.Array) -> Slot | None:
        """For that shape, if the input can have it; remembered by its text, since few differ."""
        text = at, sizes.mini
        slot = self._slots.get(text)
        if slot is None:
            spec, values = self._signature.inputs[at], sizes.as_list()
            if not _fits(values, spec):
                return None
            if len(self._slots) >= _TEMPLATES:
                self._slots.clear()
            shape = tuple(size for size in values if isinstance(size, int))
            self._slots[text] = slot = Slot(spec, shape)
        return slot

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
        wish = question.wish
        if len(slices) == 1 and wish.rows and length:
            (only,) = question.inputs
            wish, slices = replace(wish, layout=Layout(only.dtype, only.shape[1:], False)), []
        self._templates[head] = _Template(tuple(slices), length, wish)

    def _in_order(self, head: bytes) -> bool:
        names = [each["name"] for each in json.loads(head)["inputs"]]
        return names == [spec.name for spec in self._signature.inputs]


def _filled(template: _Template, body: bytes, start: int) -> Question:
    if template.wish.layout is not None:
        return Question(template.wish, None, body[start:])
    arrays: list[Array] = []
    for dtype, shape, count, offset in template.slices:
        array = np.frombuffer(body, dtype, count, start + offset).reshape(shape)
        # The runtime wants numbers where the processor can read them in one go.
        arrays.append(array if array.flags.aligned else array.copy())
    return Question(template.wish, arrays)


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
