"""KServe's Python server with a model of its own."""

import os

import onnxruntime
from kserve import InferOutput, InferResponse, Model, ModelServer


class Served(Model):
    def __init__(self):
        super().__init__("m")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(
            os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
        )
        self.ready = True

    def predict(self, payload, headers=None, response_headers=None):
        (y,) = self.session.run(None, {"x": payload.inputs[0].as_numpy()})
        output = InferOutput(name="y", shape=list(y.shape), datatype="FP32")
        output.set_data_from_numpy(y, binary_data=False)
        return InferResponse(response_id=payload.id or "1", model_name="m", infer_outputs=[output])


if __name__ == "__main__":
    port = int(os.environ["PORT"])
    server = ModelServer(http_port=port, enable_grpc=False, workers=1, access_log_format=None)
    server.start([Served()])
