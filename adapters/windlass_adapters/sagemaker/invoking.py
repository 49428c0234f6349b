"""Inference by way of SageMaker: a request goes to the endpoint as it came, and so does the answer.

What a model answers is passed on, also when it is an error; who asks sees the same as with a model
on this machine.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping

from windlass_adapters.base import External, InferReply, TransientError
from windlass_adapters.sagemaker.answers import text
from windlass_adapters.sagemaker.api import Api
from windlass_adapters.sagemaker.errors import AbsentError, ModelAnsweredError

LARGEST = 6 << 20
"""Bytes of a request that SageMaker takes."""
_BINARY = "application/vnd.sagemaker-triton.binary+json;json-header-size="
_SIZE = re.compile(r"json-header-size=(\d+)")
_LENGTH = "inference-header-content-length"


async def invoke(
    api: Api, external: External, body: bytes, headers: Mapping[str, str]
) -> InferReply:
    """One request. Raises TransientError when nobody answers."""
    if len(body) > LARGEST:
        message = f"the request has {len(body)} bytes; SageMaker takes {LARGEST}: send fewer rows"
        return _problem(413, message)
    given = {name.lower(): value for name, value in headers.items()}
    content = given.get("content-type") or "application/json"
    if _LENGTH in given:
        content = f"{_BINARY}{given[_LENGTH]}"
    accept = given.get("accept") or "*/*"
    try:
        answer = await api.call(
            "sagemaker-runtime",
            "InvokeEndpoint",
            EndpointName=external.name,
            Body=io.BytesIO(body),
            ContentType=content,
            Accept=accept,
        )
    except ModelAnsweredError as error:
        return InferReply(error.status, {"content-type": "application/json"}, _as_json(error.body))
    except AbsentError as error:
        raise TransientError(f"{error}; windlass describe says how it stands") from None
    held = answer.get("Body")
    found = {"content-type": text(answer, "ContentType") or "application/json"}
    if size := _SIZE.search(found["content-type"]):
        found[_LENGTH] = size[1]
    variant = text(answer, "InvokedProductionVariant")
    if variant:
        found["x-windlass-variant"] = variant
    return InferReply(200, found, held if isinstance(held, bytes) else b"")


def _as_json(said: bytes) -> bytes:
    """A model's words; those that are no JSON are put into some."""
    try:
        json.loads(said)
    except ValueError:
        return json.dumps({"error": said.decode(errors="replace")}).encode()
    return said


def _problem(status: int, message: str) -> InferReply:
    body = json.dumps({"error": message}).encode()
    return InferReply(status, {"content-type": "application/json"}, body)
