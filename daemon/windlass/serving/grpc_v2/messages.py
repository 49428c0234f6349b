"""gRPC messages to tensors and back; the same rules as ``oip`` has for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from windlass.serving.batch import Batch
from windlass.serving.grpc_v2 import inference_pb2 as pb
from windlass.serving.http import Reply
from windlass.serving.oip import OipError, WantedOutput, check_shape
from windlass.serving.reading import Question, asked
from windlass.serving.served import Served
from windlass.serving.tensors import (
    DATATYPES,
    Array,
    Datatype,
    TensorError,
    TensorSpec,
    from_binary,
    from_json,
    quoted,
    to_binary,
)

PROTOBUF = "application/grpc"
_CONTENTS: Mapping[str, str] = {
    "BOOL": "bool_contents",
    **{f"INT{bits}": "int_contents" for bits in (8, 16, 32)},
    "INT64": "int64_contents",
    **{f"UINT{bits}": "uint_contents" for bits in (8, 16, 32)},
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where each datatype lies; FP16 lies nowhere and goes as raw bytes only."""


class MessageForm:
    """One request message; its answer has the form of the question."""

    def __init__(self, request: pb.ModelInferRequest) -> None:
        self._request = request

    def read(self, served: Served, body: bytes) -> Question:
        request = self._request
        specs = {spec.name: spec for spec in served.model.signature.inputs}
        raw = request.raw_input_contents
        if raw and len(raw) != len(request.inputs):
            raise OipError(
                f"raw_input_contents has {len(raw)} entries for {len(request.inputs)} inputs"
            )
        found: dict[str, Array] = {}
        for at, entry in enumerate(request.inputs):
            spec = specs.get(entry.name)
            if spec is None:
                takes = ", ".join(map(str, specs.values()))
                raise OipError(f"input {quoted(entry.name)}: the model takes {takes}")
            if entry.name in found:
                raise OipError(f"input {quoted(entry.name)} is sent twice")
            try:
                found[entry.name] = _tensor(entry, spec, raw[at] if raw else None)
            except TensorError as error:
                text = f"input {quoted(entry.name)}: {error}; the model takes {spec}"
                raise OipError(text) from None
        if missing := [spec for spec in specs.values() if spec.name not in found]:
            raise OipError(f"missing input: the model also takes {', '.join(map(str, missing))}")
        outputs = _outputs(request, served.model.signature.outputs)
        timeout = request.parameters["timeout"].int64_param if request.parameters else 0
        inputs = [found[name] for name in specs]
        return asked(request.id or None, inputs, outputs, timeout / 1e6 or None)

    def write(
        self, served: Served, question: Question, batch: Batch, start: int, stop: int
    ) -> Reply:
        labels, wish = served.labels, question.wish
        answer = pb.ModelInferResponse(
            model_name=labels.model, model_version=labels.version, id=wish.id or ""
        )
        raw = bool(self._request.raw_input_contents) or any(
            wanted.spec.datatype not in _CONTENTS for wanted in wish.outputs
        )
        for wanted, result in zip(wish.outputs, batch.part(start, stop), strict=True):
            datatype = DATATYPES[wanted.spec.datatype]
            entry = answer.outputs.add(
                name=wanted.spec.name, datatype=datatype.name, shape=result.shape
            )
            if raw:
                answer.raw_output_contents.append(to_binary(result, datatype))
            else:
                flat = result.ravel().tolist()
                values = [str(text).encode() for text in flat] if datatype.name == "BYTES" else flat
                getattr(entry.contents, _CONTENTS[datatype.name]).extend(values)
        return Reply(200, answer.SerializeToString(), PROTOBUF)


def _tensor(
    entry: pb.ModelInferRequest.InferInputTensor, spec: TensorSpec, raw: bytes | None
) -> Array:
    if entry.datatype != spec.datatype:
        raise TensorError(f"datatype is {quoted(entry.datatype)}")
    datatype = DATATYPES[spec.datatype]
    shape = check_shape(list(entry.shape), spec)
    if raw is not None:
        return from_binary(memoryview(raw), datatype, shape)
    return from_json(_values(entry.contents, datatype), datatype, shape)


def _values(contents: pb.InferTensorContents, datatype: Datatype) -> list[object]:
    field = _CONTENTS.get(datatype.name)
    if field is None:
        raise TensorError(f"{datatype.name} goes in raw_input_contents only")
    if datatype.name != "BYTES":
        return list(getattr(contents, field))
    try:
        return [text.decode() for text in contents.bytes_contents]
    except UnicodeDecodeError:
        raise TensorError("an element is not UTF-8, and ONNX strings are UTF-8") from None


def _outputs(
    request: pb.ModelInferRequest, given: Sequence[TensorSpec]
) -> tuple[WantedOutput, ...]:
    specs = {spec.name: spec for spec in given}
    names = [entry.name for entry in request.outputs] or list(specs)
    for name in names:
        if name not in specs:
            gives = ", ".join(map(str, given))
            raise OipError(f"output {quoted(name)}: the model gives {gives}")
    if len(set(names)) != len(names):
        raise OipError("an output is asked for twice")
    return tuple(WantedOutput(specs[name], binary=True) for name in names)
