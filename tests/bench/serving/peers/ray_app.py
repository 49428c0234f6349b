"""Ray Serve, one replica behind its own proxy."""

import os
import time

import numpy as np
import onnxruntime
import ray
from ray import serve


@serve.deployment(max_ongoing_requests=100)
class Served:
    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(
            os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
        )

    async def __call__(self, request):
        tensor = (await request.json())["inputs"][0]
        x = np.array(tensor["data"], np.float32).reshape(tensor["shape"])
        (y,) = self.session.run(None, {"x": x})
        data = y.ravel().tolist()
        output = {"name": "y", "datatype": "FP32", "shape": list(y.shape), "data": data}
        return {"model_name": "m", "outputs": [output]}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PORT"])})
    serve.run(Served.bind(), route_prefix="/v2/models/m/infer")
    while True:
        time.sleep(60)
