"""Triton's Python backend, for the server that comes with nvidia-pytriton."""

import os
import sys

# The stub does not look at it by itself.
sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402


class TritonPythonModel:
    def initialize(self, args):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(
            os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
        )

    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(r, "x").as_numpy() for r in requests]
        (y,) = self.session.run(None, {"x": np.concatenate(arrays)})
        found, at = [], 0
        for array in arrays:
            part = y[at : at + len(array)]
            at += len(array)
            found.append(pb_utils.InferenceResponse([pb_utils.Tensor("y", part)]))
        return found
