"""What is asked of every server: models, a request for each, and what must come back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import onnxruntime

from bench.serving.contenders import HERE
from bench.serving.machine import SERVER
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


_LOOP = """
import sys, time
from pathlib import Path
import numpy as np
from bench.serving.payloads import session
runs, rows, shape = session(Path(sys.argv[1])), int(sys.argv[2]), eval(sys.argv[3])
x = np.random.rand(rows, *shape).astype(np.float32)
for line in sys.stdin:
    count, spent, ends = 0, time.process_time(), [time.perf_counter()]
    end = ends[0] + float(line)
    while ends[-1] < end:
        runs.run(None, {"x": x})
        count += rows
        ends.append(time.perf_counter())
    waits = sorted(b - a for a, b in zip(ends, ends[64:])) or [1.0]
    spread = waits[len(waits) * 99 // 100] / waits[len(waits) // 2]
    taken = ends[-1] - ends[0]
    print(count / taken, (time.process_time() - spent) / count * 1e6, spread, flush=True)
"""


class Loop:
    """``session.run`` in a tight loop on the server's core, when it is asked to; else it waits."""

    def __init__(self, payload: Payload, rows: int) -> None:
        self._shape = str(tuple(payload.row.shape[1:]))
        self._arguments = [str(payload.model), str(rows), self._shape]
        self._process: subprocess.Popen[str] | None = None
        self.spreads: list[float] = []
        """Of each measurement: p99 over p50 of what 64 clients would wait, a run for each in turn,
        if nothing but the runs took any time."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            ["taskset", "-c", str(SERVER), sys.executable, "-c", _LOOP, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(HERE.parents[1])},
        )
        self.run(0.2)
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate()

    def run(self, seconds: float) -> tuple[float, float]:
        """Rows a second, and microseconds of processor time of each row."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{seconds}\n")
        process.stdin.flush()
        rate, spent, spread = process.stdout.readline().split()
        self.spreads.append(float(spread))
        return float(rate), float(spent)


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
