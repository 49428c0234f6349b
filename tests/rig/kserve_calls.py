"""Calls of KServe's clients, REST and gRPC, in a process and a venv of their own: they pin a lot.

``python kserve_calls.py HTTP_PORT GRPC_PORT`` prints one JSON object of what came back.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable

import numpy as np
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferOutput,
    InferRequest,
    InferResponse,
    RESTConfig,
)

TYPES = ("FP32", "FP64", "INT64", "UINT8", "BOOL", "BYTES")
NUMPY: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {
    "FP32": np.array([[0.5, -2]], np.float32),
    "FP64": np.array([[0.1, 3]], np.float64),
    "INT64": np.array([[1, -2]], np.int64),
    "UINT8": np.array([[1, 255]], np.uint8),
    "BOOL": np.array([[True, False]]),
    "BYTES": np.array([["é", ""]], dtype=object),
}


def request(datatype: str, *, binary: bool) -> InferRequest:
    """A tensor for the model that gives it back."""
    array = NUMPY[datatype]
    sent = InferInput("x", list(array.shape), datatype)
    sent.set_data_from_numpy(array, binary_data=binary)
    return InferRequest(datatype.lower(), [sent], request_id="r1")


def texts(answer: InferResponse) -> list[str]:
    """The elements of the one output, as text."""
    assert answer.id == "r1"
    (output,) = answer.outputs
    assert isinstance(output, InferOutput)
    found: list[object] = output.as_numpy().ravel().tolist()
    return [value.decode() if isinstance(value, bytes) else str(value) for value in found]


async def refused(call: Awaitable[object]) -> str:
    """What the client says when the server refuses."""
    try:
        await call
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "it was answered"


async def rest(port: str) -> dict[str, object]:
    """All methods of the REST client, in both protocols."""
    base = f"http://127.0.0.1:{port}"
    second = InferenceRESTClient(RESTConfig(protocol="v2", retries=0))
    first = InferenceRESTClient(RESTConfig(protocol="v1", retries=0))
    rows = {"instances": [[0.5, -2.0]]}
    found: dict[str, object] = {
        "live": await second.is_server_live(base),
        "ready": await second.is_server_ready(base),
        "model ready": await second.is_model_ready(base, "fp32"),
        "v1 model ready": await first.is_model_ready(base, "fp32"),
        "v1": await first.infer(base, rows, model_name="fp32"),
        "unknown": await second.is_model_ready(base, "nobody"),
        "wrong": await refused(second.infer(base, {"inputs": []}, model_name="fp32")),
    }
    for datatype in TYPES:
        for binary in (False, True):
            asked = request(datatype, binary=binary)
            answer = await second.infer(base, asked, model_name=datatype.lower())
            found[f"{datatype} {'binary' if binary else 'json'}"] = texts(answer)
    await first.close()
    await second.close()
    return found


async def grpc(port: str) -> dict[str, object]:
    """The methods of the gRPC client."""
    async with InferenceGRPCClient(f"127.0.0.1:{port}") as client:
        found: dict[str, object] = {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model ready": await client.is_model_ready("fp32"),
        }
        for datatype in TYPES:
            found[datatype] = texts(await client.infer(request(datatype, binary=True)))
    return found


async def main() -> None:
    """Call everything; write what came."""
    sys.stdout.write(json.dumps({"rest": await rest(sys.argv[1]), "grpc": await grpc(sys.argv[2])}))


if __name__ == "__main__":
    asyncio.run(main())
