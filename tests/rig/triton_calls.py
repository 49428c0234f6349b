"""Calls of tritonclient's HTTP client, in a process of their own: it brings gevent with it.

``python triton_calls.py HOST:PORT`` prints one JSON object of what came back.
"""

from __future__ import annotations

import asyncio
import json
import sys

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as aio
from tritonclient.utils import InferenceServerException

ARRAYS = {
    "BOOL": np.array([[True, False]]),
    "BYTES": np.array([["é", ""]], dtype=object),
    "FP16": np.array([[0.5, -2]], np.float16),
    "FP32": np.array([[0.1, np.inf]], np.float32),
    "FP64": np.array([[0.1, np.nan]], np.float64),
    **{
        f"{sign}INT{bits}".upper(): np.array([[0, 100]], f"{sign}int{bits}")
        for sign in ("", "u")
        for bits in (8, 16, 32, 64)
    },
}


def texts(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> list[str]:
    """Elements as text: tritonclient gives BYTES as bytes."""
    found: list[object] = array.ravel().tolist()
    return [value.decode() if isinstance(value, bytes) else str(value) for value in found]


def echo(client: triton.InferenceServerClient, datatype: str, binary: bool) -> list[str]:
    """Send a tensor to the model that gives it back."""
    array = ARRAYS[datatype]
    sent = triton.InferInput("x", list(array.shape), datatype)
    sent.set_data_from_numpy(array, binary_data=binary)
    wanted = triton.InferRequestedOutput("y", binary_data=binary)
    model = datatype.lower()
    result = client.infer(model, [sent], outputs=[wanted], request_id="r1")
    assert result.get_response()["id"] == "r1"
    return texts(result.as_numpy("y"))


def default(client: triton.InferenceServerClient) -> list[str]:
    """Ask as one does who names no outputs: tritonclient then wants binary ones."""
    sent = triton.InferInput("x", [1, 2], "FP32")
    sent.set_data_from_numpy(ARRAYS["FP32"])
    return texts(client.infer("fp32", [sent]).as_numpy("y"))


def packed(client: triton.InferenceServerClient, way: str) -> list[str]:
    """Compress the request, or ask for a compressed answer."""
    answer = client.infer("fp32", [row()], **{f"{way}_compression_algorithm": "gzip"})
    return texts(answer.as_numpy("y"))


def mixed(client: triton.InferenceServerClient, sent: bool, got: bool) -> list[str]:
    """Bytes one way and JSON the other."""
    tensor = triton.InferInput("x", [1, 2], "INT64")
    tensor.set_data_from_numpy(ARRAYS["INT64"], binary_data=sent)
    wanted = triton.InferRequestedOutput("y", binary_data=got)
    return texts(client.infer("int64", [tensor], outputs=[wanted]).as_numpy("y"))


def row() -> triton.InferInput:
    """One row of FP32, as bytes."""
    tensor = triton.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(ARRAYS["FP32"])
    return tensor


def at_once(address: str) -> int:
    """Eight requests at the same time."""
    client = triton.InferenceServerClient(address, concurrency=8)
    calls = [client.async_infer("fp32", [row()]) for _ in range(8)]
    return sum(texts(call.get_result().as_numpy("y")) == texts(ARRAYS["FP32"]) for call in calls)


async def by_aio(address: str) -> list[str]:
    """The client on asyncio."""
    async with aio.InferenceServerClient(address) as client:
        return texts((await client.infer("fp32", [row()])).as_numpy("y"))


def refusal(client: triton.InferenceServerClient, model: str) -> list[str]:
    """Send a wrong shape."""
    sent = triton.InferInput("x", [1, 3], "FP32")
    sent.set_data_from_numpy(np.zeros((1, 3), np.float32))
    try:
        client.infer(model, [sent])
    except InferenceServerException as error:
        return [str(error.status()), error.message()]
    return []


def main(address: str) -> dict[str, object]:
    """Make every call once."""
    client = triton.InferenceServerClient(address, network_timeout=30)
    version = client.get_model_metadata("fp32")["versions"][0]
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": client.is_model_ready("fp32"),
        "version ready": client.is_model_ready("fp32", version),
        "other version ready": client.is_model_ready("fp32", "0"),
        "unknown ready": client.is_model_ready("none"),
        "server": client.get_server_metadata(),
        "config": client.get_model_config("fp32"),
        "version 1": texts(client.infer("fp32", [row()], model_version="1").as_numpy("y")),
        "packed request": packed(client, "request"),
        "packed answer": packed(client, "response"),
        "bytes to json": mixed(client, sent=True, got=False),
        "json to bytes": mixed(client, sent=False, got=True),
        "statistics": client.get_inference_statistics("fp32"),
        "index": client.get_model_repository_index(),
        "at once": at_once(address),
        "aio": asyncio.run(by_aio(address)),
        "model": client.get_model_metadata("fp32", version),
        "expected": {name: texts(array) for name, array in ARRAYS.items()},
        "binary": {name: echo(client, name, binary=True) for name in ARRAYS},
        # FP16 goes as bytes only in this client, and NaN is no JSON in a request.
        "json": {
            name: echo(client, name, binary=False) for name in ARRAYS if not name.startswith("FP")
        },
        "default": default(client),
        "wrong shape": refusal(client, "fp32"),
        "unknown model": refusal(client, "none"),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])))
