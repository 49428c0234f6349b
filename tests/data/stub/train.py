"""A training script that takes no time: a model ``y = factor * x``, and faults on request.

``--hold PATH`` writes PATH.started and goes on only when PATH exists, so that a test can act in the
middle of a run without guessing how long it lasts.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from onnx import TensorProto, helper


def main() -> int:
    """Do as the parameters say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--factor", type=float, default=1.0)
    parser.add_argument("--hold", type=Path)
    parser.add_argument("--fault", choices=("none", "exit", "no-output", "not-onnx"))
    arguments = parser.parse_args()
    sys.stdout.write(f"factor {arguments.factor}\n")
    if arguments.hold:
        arguments.hold.with_suffix(".started").touch()
        while not arguments.hold.exists():
            time.sleep(0.01)
    if arguments.fault == "exit":
        sys.stderr.write("no such wine\n")
        return 1
    if arguments.fault == "no-output":
        return 0
    shape = [None, 1]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "stub",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [helper.make_tensor("factor", TensorProto.FLOAT, [1], [arguments.factor])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    data = b"not a model" if arguments.fault == "not-onnx" else model.SerializeToString()
    Path("model.onnx").write_bytes(data)
    Path("metrics.json").write_text(json.dumps({"factor": arguments.factor}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
