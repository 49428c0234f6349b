"""Results to response bodies, quickly: the common ways on a short path, the rest through ``oip``.

Outside the eight hops. The rows of a batch are written as JSON once for all of its requests; what
is the same in each answer of a version is made once.
"""

from __future__ import annotations

import json

from windlass.serving.batching import Batch
from windlass.serving.http import BINARY, JSON, Reply
from windlass.serving.oip import InferenceRequest, WantedOutput, encode_response
from windlass.serving.reading import Question
from windlass.serving.tensors import DATATYPES, Array, Shape

_OPENINGS = 1024
_PLAIN_KINDS = "fiub"


class Labels:
    """What each answer of one version begins with."""

    def __init__(self, model: str, version: str) -> None:
        self.model = model
        self.version = version
        named = json.dumps({"model_name": model, "model_version": version}, separators=(",", ":"))
        self.start = named[:-1].encode()
        self._openings: dict[tuple[str, Shape], bytes] = {}

    def opening(self, wanted: WantedOutput, shape: Shape) -> bytes:
        """One output's JSON up to its data, or to the end of its shape for a binary one."""
        key = (wanted.spec.name, shape)
        found = self._openings.get(key)
        if found is None:
            if len(self._openings) >= _OPENINGS:
                self._openings.clear()
            members = {"name": key[0], "datatype": wanted.spec.datatype, "shape": list(shape)}
            found = json.dumps(members, separators=(",", ":"))[:-1].encode()
            self._openings[key] = found
        return found


def written(labels: Labels, question: Question, batch: Batch, start: int, stop: int) -> Reply:
    """The answer that lies in these rows of a batch, in the Open Inference Protocol v2."""
    outputs = question.outputs
    if not any(wanted.binary for wanted in outputs):
        texts = batch.texts
        if texts is not None:
            return Reply(200, _json(labels, question, batch, texts, start, stop))
    elif all(wanted.binary for wanted in outputs):
        results = batch.part(start, stop)
        if all(result.dtype.kind in _PLAIN_KINDS for result in results):
            return _binary(labels, question, results)
    request = InferenceRequest(question.id, {}, outputs)
    encoded = encode_response(request, batch.part(start, stop), labels.model, labels.version)
    kind = JSON if encoded.json_length is None else BINARY
    return Reply(200, encoded.body, kind, None, encoded.json_length)


def _start(labels: Labels, question: Question) -> bytes:
    if question.id is None:
        return labels.start + b',"outputs":['
    return b'%b,"id":%b,"outputs":[' % (labels.start, json.dumps(question.id).encode())


def _json(
    labels: Labels,
    question: Question,
    batch: Batch,
    texts: list[list[bytes]],
    start: int,
    stop: int,
) -> bytes:
    whole = stop - start == batch.rows
    pieces = []
    for wanted, result, rows in zip(question.outputs, batch.results, texts, strict=True):
        shape = result.shape if whole else (stop - start, *result.shape[1:])
        data = b",".join(rows if whole else rows[start:stop])
        pieces.append(b'%b,"data":[%b]}' % (labels.opening(wanted, shape), data))
    return b"%b%b]}" % (_start(labels, question), b",".join(pieces))


def _binary(labels: Labels, question: Question, results: list[Array]) -> Reply:
    heads, bodies = [], []
    for wanted, result in zip(question.outputs, results, strict=True):
        dtype = DATATYPES[wanted.spec.datatype].dtype
        data = result.astype(dtype, copy=False).tobytes()
        opening = labels.opening(wanted, result.shape)
        heads.append(b'%b,"parameters":{"binary_data_size":%d}}' % (opening, len(data)))
        bodies.append(data)
    head = b"%b%b]}" % (_start(labels, question), b",".join(heads))
    return Reply(200, b"".join((head, *bodies)), BINARY, None, len(head))
