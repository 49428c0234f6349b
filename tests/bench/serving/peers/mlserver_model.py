"""MLServer with a runtime of its own for ONNX, in the server's process."""

import os

import numpy as np
import onnxruntime
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Model(MLModel):
    async def load(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(
            os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
        )
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        tensor = payload.inputs[0]
        x = np.array(tensor.data.root, np.float32).reshape(tensor.shape)
        (y,) = self.session.run(None, {"x": x})
        output = ResponseOutput(
            name="y", datatype="FP32", shape=list(y.shape), data=y.ravel().tolist()
        )
        return InferenceResponse(model_name=self.name, outputs=[output])
