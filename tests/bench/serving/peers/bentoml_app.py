"""BentoML, one worker, requests one by one."""

import os

import bentoml
import numpy as np
import onnxruntime


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Served:
    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(
            os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
        )

    @bentoml.api(route="/v2/models/m/infer")
    def infer(self, inputs: list[dict]) -> dict:
        tensor = inputs[0]
        x = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
        (y,) = self.session.run(None, {"x": x})
        data = y.ravel().tolist()
        output = {"name": "y", "datatype": "FP32", "shape": list(y.shape), "data": data}
        return {"model_name": "m", "outputs": [output]}
