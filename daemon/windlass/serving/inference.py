"""One request on one model: read, run, write. Blocking; called from threads.

Outside the eight hops. The HTTP front gives bytes and takes bytes, so that it can be replaced.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from windlass.serving.model import OnnxModel, RunError
from windlass.serving.oip import OipError, encode_response, parse_request


@dataclass(frozen=True)
class Answer:
    """What goes back to the client."""

    status: int
    body: bytes
    json_length: int | None = None
    """Set when binary tensors follow the JSON."""


@dataclass(frozen=True)
class Question:
    """What came from the client."""

    model: str
    version: str
    """The version that is in force, for the answer."""
    body: bytes
    json_length: int | None = None
    """Set when binary tensors follow the JSON."""


def infer(model: OnnxModel, question: Question) -> Answer:
    """Answer one request. Whatever is wrong with it gives a 400 that says what."""
    try:
        request = parse_request(question.body, model.signature, question.json_length)
        results = model.run(request.inputs, [wanted.spec.name for wanted in request.outputs])
        encoded = encode_response(request, results, question.model, question.version)
    except (OipError, RunError) as error:
        return refusal(400, f"model {question.model}: {error}")
    return Answer(200, encoded.body, encoded.json_length)


def refusal(status: int, message: str) -> Answer:
    """An error in the protocol's words."""
    return Answer(status, json.dumps({"error": message}).encode())
