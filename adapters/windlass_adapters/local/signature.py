"""What an ONNX file takes and gives, printed as JSON: ``python -m ...signature PATH``.

Run by ``inspection`` in a process of its own, which loads nothing but ONNX Runtime. The words are
those of the Open Inference Protocol.
"""

from __future__ import annotations

import json
import sys

import onnxruntime

Tensor = dict[str, str | list[int]]

DATATYPES = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}
"""Words of the protocol by those of ONNX Runtime; what has no word keeps its own."""


def read_signature(path: str) -> dict[str, list[Tensor]]:
    """Load a file and read its inputs and outputs. Raises what ONNX Runtime raises."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return {
        "inputs": [_tensor(x.name, x.type, x.shape) for x in session.get_inputs()],
        "outputs": [_tensor(x.name, x.type, x.shape) for x in session.get_outputs()],
    }


def _tensor(name: str, type_: str, shape: list[int | str | None] | None) -> Tensor:
    sizes = [size if isinstance(size, int) else -1 for size in shape or ()]
    return {"name": name, "datatype": DATATYPES.get(type_, type_), "shape": sizes}


def main() -> None:
    """Print the signature of the file that the first argument names."""
    try:
        text = json.dumps(read_signature(sys.argv[1]))
    except Exception as error:
        sys.exit(" ".join(str(error).split()))
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
