"""Calls of tritonclient's gRPC client, in a process of their own: its messages have our names.

``python triton_grpc_calls.py HOST:PORT`` prints one JSON object of what came back.
"""

from __future__ import annotations

import asyncio
import json
import queue
import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import aio, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from rig.triton_calls import ARRAYS, texts


def sent(datatype: str) -> triton.InferInput:
    """One input of the model that gives it back."""
    array = ARRAYS[datatype]
    tensor = triton.InferInput("x", list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def echo(client: triton.InferenceServerClient, datatype: str) -> list[str]:
    """Send a tensor to the model that gives it back."""
    wanted = triton.InferRequestedOutput("y")
    answer = client.infer(datatype.lower(), [sent(datatype)], outputs=[wanted], request_id="r1")
    assert answer.get_response().id == "r1"
    return texts(answer.as_numpy("y"))


def refusal(client: triton.InferenceServerClient, model: str) -> list[str]:
    """Send a wrong shape."""
    tensor = triton.InferInput("x", [1, 3], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 3), np.float32))
    try:
        client.infer(model, [tensor])
    except InferenceServerException as error:
        return [str(error.status()), error.message()]
    return []


def stream(client: triton.InferenceServerClient) -> list[list[str]]:
    """Several requests on one stream, a wrong one among them."""
    found: queue.Queue[list[str]] = queue.Queue()

    def note(result: triton.InferResult | None, error: Exception | None) -> None:
        found.put(texts(result.as_numpy("y")) if result is not None else ["error", str(error)])

    client.start_stream(note)
    for model in ("fp32", "none", "fp32"):
        client.async_stream_infer(model, [sent("FP32")])
    answers = [found.get(timeout=30) for _ in range(3)]
    client.stop_stream()
    return answers


async def at_once(address: str) -> int:
    """Eight requests at the same time, by the asynchronous client."""
    async with aio.InferenceServerClient(address) as client:
        calls = [client.infer("fp32", [sent("FP32")]) for _ in range(8)]
        answers = await asyncio.gather(*calls)
        return sum(texts(a.as_numpy("y")) == texts(ARRAYS["FP32"]) for a in answers)


def typed(address: str) -> dict[str, list[str]]:
    """Contents that are typed fields instead of bytes, as other clients send them."""
    import grpc

    fields = {"BOOL": "bool_contents", "INT8": "int_contents", "UINT64": "uint64_contents"}
    fields |= {"FP32": "fp32_contents", "BYTES": "bytes_contents", "FP64": "fp64_contents"}
    values: dict[str, list[object]] = {"BOOL": [True, False], "BYTES": ["é".encode(), b""]}
    found = {}
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for datatype, field in fields.items():
            request = service_pb2.ModelInferRequest(model_name=datatype.lower())
            tensor = request.inputs.add(name="x", datatype=datatype, shape=[1, 2])
            getattr(tensor.contents, field).extend(values.get(datatype, [1, 2]))
            answer = stub.ModelInfer(request, timeout=30).outputs[0]
            found[datatype] = [str(value) for value in getattr(answer.contents, field)]
    return found


def main(address: str) -> dict[str, object]:
    """Make every call once."""
    client = triton.InferenceServerClient(address)
    model = client.get_model_metadata("fp32", as_json=True)
    statistics = client.get_inference_statistics("fp32", as_json=True)
    index = client.get_model_repository_index(as_json=True)
    client.load_model("fp32")
    try:
        client.unload_model("fp32")
    except InferenceServerException as error:
        unload = str(error.status())
    else:
        unload = "done"
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model ready": client.is_model_ready("fp32"),
        "unknown ready": client.is_model_ready("none"),
        "server": client.get_server_metadata(as_json=True),
        "model": model,
        "statistics": statistics,
        "index": sorted(entry["name"] for entry in index["models"]),
        "unload": unload,
        "expected": {name: texts(array) for name, array in ARRAYS.items()},
        "echo": {name: echo(client, name) for name in ARRAYS},
        "typed": typed(address),
        "stream": stream(client),
        "at once": asyncio.run(at_once(address)),
        "wrong shape": refusal(client, "fp32"),
        "unknown model": refusal(client, "none"),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(sys.argv[1])))
