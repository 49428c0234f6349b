"""LitServe; BATCH=1 turns batching off."""

import os

import litserve
import numpy as np
import onnxruntime

BATCH = int(os.environ["BATCH"])


class Api(litserve.LitAPI):
    def setup(self, device):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(
            os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
        )

    def decode_request(self, request):
        tensor = request["inputs"][0]
        return np.array(tensor["data"], np.float32).reshape(tensor["shape"])

    def batch(self, inputs):
        return np.concatenate(inputs)

    def unbatch(self, output):
        return list(output.reshape(len(output), 1, -1))

    def predict(self, x):
        return self.session.run(None, {"x": x})[0]

    def encode_response(self, y):
        data = y.ravel().tolist()
        output = {"name": "y", "datatype": "FP32", "shape": list(y.shape), "data": data}
        return {"model_name": "m", "outputs": [output]}


if __name__ == "__main__":
    api = Api(max_batch_size=BATCH, batch_timeout=0.002, api_path="/v2/models/m/infer")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(port=int(os.environ["PORT"]), host="127.0.0.1", log_level="warning")
