"""Write ``model.onnx``: three numbers for each row of four, from fixed weights.

Nothing is learned here: the spec beside this file shows serving. ``--scale`` makes another model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def main() -> None:
    """Build the graph and write it."""
    parser = argparse.ArgumentParser(description="Write a small model.")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of the answers")
    scale = parser.parse_args().scale
    weights = (np.arange(12, dtype=np.float32).reshape(4, 3) - 6) / 6 * np.float32(scale)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        "scores",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        initializer=[numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    Path("model.onnx").write_bytes(model.SerializeToString())


if __name__ == "__main__":
    main()
