"""mosec; BATCH=1 turns batching off, its fastest way for one client."""

import os

import numpy as np
import onnxruntime
from mosec import Server, Worker

BATCH = int(os.environ["BATCH"])


class Model(Worker):
    def __init__(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(
            os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
        )

    def forward(self, data):
        requests = data if BATCH > 1 else [data]
        arrays = [
            np.array(r["inputs"][0]["data"], np.float32).reshape(r["inputs"][0]["shape"])
            for r in requests
        ]
        (y,) = self.session.run(None, {"x": np.concatenate(arrays)})
        answers = [
            {
                "model_name": "m",
                "outputs": [
                    {"name": "y", "datatype": "FP32", "shape": [1, len(row)], "data": row.tolist()}
                ],
            }
            for row in y
        ]
        return answers if BATCH > 1 else answers[0]


if __name__ == "__main__":
    server = Server()
    server.append_worker(Model, num=1, max_batch_size=BATCH, max_wait_time=2)
    server.run()
