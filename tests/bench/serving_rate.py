"""First figures of the serving process: start, memory, requests a second for a small model.

``python tests/bench/serving_rate.py`` with the source roots on PYTHONPATH. Client and server share
the machine, and the client is Python: read the rates as a lower bound.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from rig import onnx_models
from rig.serving import Serving, tensor

SECONDS = 4.0
CONNECTIONS = (1, 8, 64)


def perceptron(path: Path) -> Path:
    """784-256-10, as the research on peers used it."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.normal(size=size).astype(np.float32), name)
        for name, size in (("w1", (784, 256)), ("b1", 256), ("w2", (256, 10)), ("b2", 10))
    ]
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 784])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 10])],
        initializer=weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


async def ask(port: int, request: bytes, deadline: float) -> list[float]:
    """One connection, closed loop: seconds of each request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    seconds = []
    while time.perf_counter() < deadline:
        started = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().split(b"\r\ncontent-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        seconds.append(time.perf_counter() - started)
    writer.close()
    return seconds


async def rate(port: int, request: bytes, connections: int) -> str:
    """Requests a second and latencies with that many connections."""
    deadline = time.perf_counter() + SECONDS
    lists = await asyncio.gather(*(ask(port, request, deadline) for _ in range(connections)))
    seconds = [value for each in lists for value in each]
    cuts = statistics.quantiles(seconds, n=100)
    return (
        f"{connections:3} connections: {len(seconds) / SECONDS:7.0f} requests/s,"
        f" p50 {cuts[49] * 1000:.2f} ms, p99 {cuts[98] * 1000:.2f} ms"
    )


def http(path: str, body: bytes, *headers: str) -> bytes:
    """A whole request."""
    lines = (f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "", "")
    return "\r\n".join(lines).encode() + body


def main() -> None:
    """Measure once and print."""
    with tempfile.TemporaryDirectory() as folder:
        small = onnx_models.identity(Path(folder) / "small.onnx")
        model = perceptron(Path(folder) / "m.onnx")
        started = time.perf_counter()
        with Serving(Path(folder) / "state") as serving:
            announced = time.perf_counter() - started
            status = Path(f"/proc/{serving.process.pid}/status")
            idle = next(line for line in status.read_text().splitlines() if "VmRSS" in line)
            serving.deploy("small", small)
            row = {"inputs": [tensor("x", "FP32", [1, 2], [1, 2])]}
            assert serving.infer("small", row).status_code == 200
            print(f"announced after {announced:.2f} s,", end=" ")
            print(f"first answer after {time.perf_counter() - started:.2f} s, idle {idle}")
            serving.deploy("m", model)
            values = np.random.default_rng(1).random((1, 784)).astype(np.float32)
            entry = tensor("x", "FP32", [1, 784], [round(float(v), 4) for v in values[0]])
            path = "/v2/models/m/infer"
            text = http(path, json.dumps({"inputs": [entry]}).encode())
            del entry["data"]
            entry["parameters"] = {"binary_data_size": values.nbytes}
            wish = {"binary_data_output": True}
            head = json.dumps({"inputs": [entry], "parameters": wish}).encode()
            length = f"Inference-Header-Content-Length: {len(head)}"
            binary = http(path, head + values.tobytes(), length)
            for name, request in (("JSON", text), ("binary", binary)):
                for connections in CONNECTIONS:
                    print(name, asyncio.run(rate(serving.port, request, connections)))


if __name__ == "__main__":
    main()
