"""Open Inference Protocol v2: request bytes to tensors, tensors to response bytes.

Pure; outside the eight hops, on the way of an inference request. Also speaks the binary tensor
extension (``binary_tensor_data``), which clients such as tritonclient use by default.

NaN and infinities: refused in a request's JSON, because they are not JSON and because nobody means
them. In a response's JSON a result that is not finite is written as ``NaN``, ``Infinity`` or
``-Infinity``, as Triton does; who needs strict JSON asks for binary output.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NoReturn, TypeVar

from windlass.serving.tensors import (
    DATATYPES,
    Array,
    Datatype,
    Shape,
    Signature,
    TensorError,
    TensorSpec,
    from_binary,
    from_json,
    quoted,
    to_binary,
    to_json,
)

EXTENSIONS = ("binary_tensor_data", "statistics", "model_repository", "model_configuration")
PLATFORM = "onnxruntime_onnx"
MAX_RANK = 32
MAX_DIMENSION = (1 << 31) - 1

_SHARED_MEMORY = "shared_memory_region"
_WORDS: Mapping[type, str] = {str: "a string", dict: "an object", list: "an array"}

T = TypeVar("T", str, dict[str, object], list[object])


class OipError(Exception):
    """The request is wrong. The message says what was sent and what the model takes."""


@dataclass(frozen=True)
class WantedOutput:
    """One output that the answer carries."""

    spec: TensorSpec
    binary: bool


@dataclass(frozen=True)
class InferenceRequest:
    """A request that fits the model's signature."""

    id: str | None
    inputs: Mapping[str, Array]
    outputs: tuple[WantedOutput, ...]
    timeout: float | None = None
    """Seconds that the client is willing to wait: the parameter ``timeout``, in microseconds."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the outputs."""
        return tuple(wanted.spec.name for wanted in self.outputs)


@dataclass(frozen=True)
class Encoded:
    """A response's body."""

    body: bytes
    json_length: int | None
    """Bytes of JSON before the binary tensors; None when the body is JSON alone."""


def parse_request(
    body: bytes, signature: Signature, json_length: int | None = None
) -> InferenceRequest:
    """Read a request body. ``json_length`` is the header of the binary extension, when given."""
    head, tail = _split(body, json_length)
    document = read_document(head)
    identity = _optional(document, "id", str, "the request")
    parameters = _optional(document, "parameters", dict, "the request") or {}
    inputs = _inputs(document, memoryview(tail), signature)
    binary = _flag(parameters, "binary_data_output", "the request")
    outputs = _outputs(document, signature, binary)
    return InferenceRequest(identity, inputs, outputs, _timeout(parameters))


def encode_response(
    request: InferenceRequest, results: Sequence[Array], model: str, version: str
) -> Encoded:
    """Write the answer: outputs in the request's order, its id echoed."""
    outputs: list[dict[str, object]] = []
    binary: list[bytes] = []
    for wanted, result in zip(request.outputs, results, strict=True):
        output: dict[str, object] = {
            "name": wanted.spec.name,
            "datatype": wanted.spec.datatype,
            "shape": list(result.shape),
        }
        if wanted.binary:
            data = to_binary(result, DATATYPES[wanted.spec.datatype])
            output["parameters"] = {"binary_data_size": len(data)}
            binary.append(data)
        else:
            output["data"] = to_json(result)
        outputs.append(output)
    document: dict[str, object] = {"model_name": model, "model_version": version}
    if request.id is not None:
        document["id"] = request.id
    document["outputs"] = outputs
    head = json.dumps(document, separators=(",", ":")).encode()
    if not any(wanted.binary for wanted in request.outputs):
        return Encoded(head, None)
    return Encoded(b"".join((head, *binary)), len(head))


def server_metadata(version: str) -> dict[str, object]:
    """The answer of ``GET /v2``."""
    return {"name": "windlass", "version": version, "extensions": list(EXTENSIONS)}


def model_metadata(name: str, version: str, signature: Signature) -> dict[str, object]:
    """The answer of ``GET /v2/models/{name}``."""
    return {
        "name": name,
        "versions": [version],
        "platform": PLATFORM,
        **signature.document(),
    }


def _split(body: bytes, json_length: int | None) -> tuple[bytes, bytes]:
    if json_length is None:
        return body, b""
    if not 0 < json_length <= len(body):
        raise OipError(
            f"Inference-Header-Content-Length is {json_length}; it must be the number of bytes of"
            f" JSON at the start of the body, from 1 to {len(body)}"
        )
    return body[:json_length], body[json_length:]


def read_document(text: bytes) -> dict[str, object]:
    """A JSON object, strictly read. Raises OipError."""
    if not text.strip():
        raise OipError('the body is empty; send JSON with a member "inputs"')
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise OipError("the body is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise OipError(
            f"the body is not UTF-8 text: {error.reason} at byte {error.start}"
        ) from None
    except ValueError as error:
        raise OipError(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise OipError(f'the body is {quoted(document)}; send an object with a member "inputs"')
    return document


def _refuse_constant(token: str) -> NoReturn:
    raise OipError(f"the body is not JSON: it has no {token}; send finite numbers")


def _optional(document: Mapping[str, object], name: str, kind: type[T], where: str) -> T | None:
    """A member that may be absent. ``null`` counts as absent: some clients write every member."""
    value = document.get(name)
    if value is None or isinstance(value, kind):
        return value
    raise OipError(f"{where}: {name} is {quoted(value)}, not {_WORDS[kind]}")


def _required(document: Mapping[str, object], name: str, kind: type[T], where: str) -> T:
    value = _optional(document, name, kind, where)
    if value is None:
        raise OipError(f"{where}: the member {quoted(name)} is missing")
    return value


def _flag(parameters: Mapping[str, object], name: str, where: str) -> bool:
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise OipError(f"{where}: {name} is {quoted(value)}, not true or false")
    return value


def _timeout(parameters: Mapping[str, object]) -> float | None:
    value = parameters.get("timeout")
    if value is None:
        return None
    if type(value) is not int or value < 0:
        raise OipError(f"the request: timeout is {quoted(value)}, not a number of microseconds")
    return value / 1e6 if value else None


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise OipError(f"{where} is {quoted(value)}, not an object")
    return value


def _inputs(
    document: Mapping[str, object], tail: memoryview, signature: Signature
) -> dict[str, Array]:
    specs = {spec.name: spec for spec in signature.inputs}
    found: dict[str, Array] = {}
    offset = 0
    for at, item in enumerate(_required(document, "inputs", list, "the request")):
        entry = _object(item, f"inputs[{at}]")
        name = _required(entry, "name", str, f"inputs[{at}]")
        if name not in specs:
            raise OipError(f"input {quoted(name)}: the model takes {_listed(signature.inputs)}")
        if name in found:
            raise OipError(f"input {quoted(name)} is sent twice")
        try:
            found[name], used = _input(entry, specs[name], tail[offset:])
        except TensorError as error:
            message = f"input {quoted(name)}: {error}; the model takes {specs[name]}"
            raise OipError(message) from None
        offset += used
    if missing := [spec for spec in signature.inputs if spec.name not in found]:
        raise OipError(f"missing input: the model also takes {_listed(missing)}")
    if offset != len(tail):
        raise OipError(
            f"{len(tail)} bytes follow the JSON, and binary_data_size adds up to {offset};"
            " the two must be equal"
        )
    return found


def _input(entry: Mapping[str, object], spec: TensorSpec, tail: memoryview) -> tuple[Array, int]:
    """Read one input; also how many bytes of the binary part it used."""
    where = f"input {quoted(spec.name)}"
    datatype = _datatype(_required(entry, "datatype", str, where), spec)
    shape = check_shape(_required(entry, "shape", list, where), spec)
    parameters = _optional(entry, "parameters", dict, where) or {}
    if _SHARED_MEMORY in parameters:
        raise OipError(f"{where}: shared memory is not offered; send the data in the body")
    size = parameters.get("binary_data_size")
    if size is None:
        if entry.get("data") is None:
            raise OipError(f'{where}: the member "data" is missing; the model takes {spec}')
        return from_json(entry["data"], datatype, shape), 0
    if entry.get("data") is not None:
        raise OipError(f'{where}: has both "data" and binary_data_size; send one of them')
    if type(size) is not int or not 0 <= size <= len(tail):
        raise OipError(
            f"{where}: binary_data_size is {quoted(size)}, and {len(tail)} bytes are left after"
            " the JSON; is the header Inference-Header-Content-Length set?"
        )
    return from_binary(tail[:size], datatype, shape), size


def _datatype(name: str, spec: TensorSpec) -> Datatype:
    if name != spec.datatype:
        raise TensorError(f"datatype is {quoted(name)}")
    return DATATYPES[name]


def check_shape(sizes: Sequence[object], spec: TensorSpec) -> Shape:
    """The shape, if the input can have it. Raises TensorError."""
    if len(sizes) > MAX_RANK:
        raise TensorError(f"shape has {len(sizes)} axes, more than {MAX_RANK}")
    for size in sizes:
        if type(size) is not int or not 0 <= size <= MAX_DIMENSION:
            raise TensorError(
                f"shape has {quoted(size)}; sizes are whole numbers from 0 to {MAX_DIMENSION}"
            )
    shape = tuple(size for size in sizes if isinstance(size, int))
    if prod(max(size, 1) for size in shape) > MAX_DIMENSION:
        raise TensorError(f"shape {list(shape)} is larger than a tensor can be")
    if spec.any_rank:
        return shape
    if len(shape) != len(spec.shape):
        raise TensorError(f"shape {list(shape)} has {len(shape)} axes, not {len(spec.shape)}")
    for axis, (size, wanted) in enumerate(zip(shape, spec.shape, strict=True)):
        if wanted not in (-1, size):
            raise TensorError(f"shape {list(shape)} has {size} on axis {axis}, not {wanted}")
    return shape


def _outputs(
    document: Mapping[str, object], signature: Signature, binary: bool
) -> tuple[WantedOutput, ...]:
    """Those asked for, in that order; all when none is named."""
    specs = {spec.name: spec for spec in signature.outputs}
    found: dict[str, WantedOutput] = {}
    for at, item in enumerate(_optional(document, "outputs", list, "the request") or []):
        entry = _object(item, f"outputs[{at}]")
        name = _required(entry, "name", str, f"outputs[{at}]")
        where = f"output {quoted(name)}"
        if name not in specs:
            raise OipError(f"{where}: the model gives {_listed(signature.outputs)}")
        if name in found:
            raise OipError(f"{where} is asked for twice")
        parameters = _optional(entry, "parameters", dict, where) or {}
        for unknown in ("classification", _SHARED_MEMORY):
            if parameters.get(unknown):
                raise OipError(f"{where}: the parameter {unknown} is not offered; leave it out")
        own = _flag(parameters, "binary_data", where) if "binary_data" in parameters else binary
        found[name] = WantedOutput(specs[name], own)
    if found:
        return tuple(found.values())
    return tuple(WantedOutput(spec, binary) for spec in signature.outputs)


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(map(str, specs)) if specs else "none"
