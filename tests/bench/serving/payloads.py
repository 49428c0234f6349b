"""What is asked of every server: models, a request for each, and what must come back."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from bench.serving.contenders import HERE
from rig import onnx_models


@dataclass(frozen=True)
class Payload:
    """A request and what must come back."""

    model: Path
    row: np.ndarray[tuple[int, ...], np.dtype[np.float32]]

    @property
    def json(self) -> bytes:
        data = [round(float(value), 4) for value in self.row.ravel()]
        entry = {"name": "x", "shape": list(self.row.shape), "datatype": "FP32", "data": data}
        return json.dumps({"inputs": [entry]}).encode()

    @property
    def binary(self) -> tuple[bytes, int]:
        """The body, and the length of the JSON at its start."""
        size = {"binary_data_size": self.row.nbytes}
        entry = {"name": "x", "shape": list(self.row.shape), "datatype": "FP32"}
        wish = {"binary_data_output": True}
        head = json.dumps({"inputs": [{**entry, "parameters": size}], "parameters": wish}).encode()
        return head + self.row.tobytes(), len(head)

    def expected(self) -> list[float]:
        loaded = session(self.model)
        (result,) = loaded.run(None, {"x": np.round(self.row, 4)})
        found: list[float] = result.ravel().tolist()
        return found


def session(model: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def raw_limit(payload: Payload, rows: int, seconds: float) -> float:
    """Rows a second of ``session.run`` in a tight loop on the server's core."""
    code = (
        "import sys,time,numpy as np;sys.path.insert(0,sys.argv[1]);"
        "from bench.serving.payloads import session;from pathlib import Path;"
        "s=session(Path(sys.argv[2]));n=int(sys.argv[3]);shape=eval(sys.argv[5]);"
        "x=np.random.rand(n,*shape).astype(np.float32);s.run(None,{'x':x});"
        "t=time.perf_counter();c=0\n"
        "while time.perf_counter()-t<float(sys.argv[4]): s.run(None,{'x':x});c+=n\n"
        "print(c/(time.perf_counter()-t))"
    )
    shape = str(tuple(payload.row.shape[1:]))
    arguments = [str(HERE.parents[1]), str(payload.model), str(rows), str(seconds), shape]
    command = ["taskset", "-c", "0", sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return float(done.stdout)


def payloads(folder: Path) -> dict[str, Payload]:
    """small: overhead decides; deep: memory does, batching helps; conv: computing does."""
    chance = np.random.default_rng(1)
    row = chance.random((1, 784)).astype(np.float32)
    deep = onnx_models.perceptron(folder / "deep.onnx", (784, *[2560] * 11, 10))
    return {
        "small": Payload(onnx_models.perceptron(folder / "small.onnx"), row),
        "deep": Payload(deep, row),
        "conv": Payload(onnx_models.convolutions(folder / "conv.onnx", 9, 128), row),
    }
