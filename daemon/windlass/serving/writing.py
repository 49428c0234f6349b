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
    if stop - start == 1 and wish.id is None and (wish.all_json or wish.all_binary):
        single = batch.single
        if single is None or single[0] is not wish:
            single = batch.single = _single(labels, wish, batch)
        _, length, bodies = single
        if length:
            return Reply(200, bodies[start], BINARY, None, length)
        if bodies:
            return Reply(200, bodies[start])
    if wish.all_json:
        texts = batch.texts
        if texts is not None:
            return Reply(200, _json(labels, wish, batch, texts, start, stop))
    elif wish.all_binary:
        raws = batch.raws
        if raws is not None:
            return _binary(labels, wish, batch, raws, start, stop)
    request = InferenceRequest(wish.id, {}, wish.outputs)
    encoded = encode_response(request, batch.part(start, stop), labels.model, labels.version)
    kind = JSON if encoded.json_length is None else BINARY
    return Reply(200, encoded.body, kind, None, encoded.json_length)


def _single(labels: Labels, wish: Wish, batch: Batch) -> tuple[Wish, int, list[bytes]]:
    """The bodies of answers of one row and one output, all at once; none where that is not all."""
    if len(batch.results) != 1 or batch.results[0].shape[:1] != (batch.rows,):
        return wish, 0, []
    shape = (1, *batch.results[0].shape[1:])
    start = labels.start(None) + labels.opening(wish.outputs[0], shape)
    if wish.all_json:
        texts = batch.texts
        start += b',"data":['
        return wish, 0, [b"%b%b]}]}" % (start, text) for text in texts[0]] if texts else []
    raws = batch.raws
    if not raws or not raws[0]:
        return wish, 0, []
    raw, size = raws[0], len(raws[0]) // batch.rows
    start += b',"parameters":{"binary_data_size":%d}}]}' % size
    return wish, len(start), [start + raw[at : at + size] for at in range(0, len(raw), size)]


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


def _binary(
    labels: Labels, wish: Wish, batch: Batch, raws: Sequence[bytes], start: int, stop: int
) -> Reply:
    rows = stop - start
    head = _head(labels, wish, batch, rows)
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
