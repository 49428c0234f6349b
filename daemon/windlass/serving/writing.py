"""Results to response bodies, quickly: the common ways on a short path, the rest through ``oip``.

Outside the eight hops. The rows of a batch are written as JSON once for all of its requests; what
is the same in each answer of a version is made once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from windlass.serving.batch import Batch
from windlass.serving.http import BINARY, JSON, Reply
from windlass.serving.oip import InferenceRequest, WantedOutput, encode_response
from windlass.serving.reading import Question, Wish
from windlass.serving.tensors import Shape

_OPENINGS = 1024


class Labels:
    """What each answer of one version begins with."""

    def __init__(self, model: str, version: str) -> None:
        self.model = model
        self.version = version
        named = json.dumps({"model_name": model, "model_version": version}, separators=(",", ":"))
        self._named = named[:-1].encode()
        self._start = self._named + b',"outputs":['
        self._openings: dict[tuple[str, Shape], bytes] = {}

    def start(self, identity: str | None) -> bytes:
        """The JSON up to the first output."""
        if identity is None:
            return self._start
        return b'%b,"id":%b,"outputs":[' % (self._named, json.dumps(identity).encode())

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
    wish = question.wish
    if wish.all_json:
        texts = batch.texts
        if texts is not None:
            opening = batch.opening
            if opening is None:
                batch.opening = opening = _opening_of_a_row(labels, wish, batch)
            if opening and stop - start == 1 and wish.id is None:
                return Reply(200, b"%b%b]}]}" % (opening, texts[0][start]))
            return Reply(200, _json(labels, wish, batch, texts, start, stop))
    elif wish.all_binary:
        raws = batch.raws
        if raws is not None:
            return _binary(labels, wish, batch, raws, start, stop)
    request = InferenceRequest(wish.id, {}, wish.outputs)
    encoded = encode_response(request, batch.part(start, stop), labels.model, labels.version)
    kind = JSON if encoded.json_length is None else BINARY
    return Reply(200, encoded.body, kind, None, encoded.json_length)


def _json(
    labels: Labels,
    wish: Wish,
    batch: Batch,
    texts: Sequence[Sequence[bytes]],
    start: int,
    stop: int,
) -> bytes:
    whole = stop - start == batch.rows
    pieces = []
    for wanted, result, rows in zip(wish.outputs, batch.results, texts, strict=True):
        shape = result.shape if whole else (stop - start, *result.shape[1:])
        data = b",".join(rows if whole else rows[start:stop])
        pieces.append(b'%b,"data":[%b]}' % (labels.opening(wanted, shape), data))
    return b"%b%b]}" % (labels.start(wish.id), b",".join(pieces))


def _opening_of_a_row(labels: Labels, wish: Wish, batch: Batch) -> bytes:
    """What comes before the numbers of an answer of one row and one output; or nothing."""
    if len(batch.results) != 1 or batch.results[0].shape[0] != batch.rows:
        return b""
    shape = (1, *batch.results[0].shape[1:])
    return b'%b%b,"data":[' % (labels.start(None), labels.opening(wish.outputs[0], shape))


def _binary(
    labels: Labels, wish: Wish, batch: Batch, raws: Sequence[bytes], start: int, stop: int
) -> Reply:
    rows = stop - start
    head = batch.heads.get(rows) if wish.id is None else None
    if head is None:
        head = _head(labels, wish, batch, rows)
        if wish.id is None:
            batch.heads[rows] = head
    if rows != batch.rows:
        sizes = [len(raw) // batch.rows for raw in raws]
        raws = [raw[start * n : stop * n] for raw, n in zip(raws, sizes, strict=True)]
    return Reply(200, b"".join((head, *raws)), BINARY, None, len(head))


def _head(labels: Labels, wish: Wish, batch: Batch, rows: int) -> bytes:
    """The JSON before binary tensors of so many rows of a batch, or of all of it."""
    heads = []
    for wanted, result in zip(wish.outputs, batch.results, strict=True):
        whole = rows == batch.rows
        shape = result.shape if whole else (rows, *result.shape[1:])
        size = result.nbytes if whole else result.nbytes // batch.rows * rows
        opening = labels.opening(wanted, shape)
        heads.append(b'%b,"parameters":{"binary_data_size":%d}}' % (opening, size))
    return b"%b%b]}" % (labels.start(wish.id), b",".join(heads))
