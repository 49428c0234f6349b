"""Plain FastAPI, the way with the best rate: an async route that runs the model in the loop."""

import os

import numpy as np
import onnxruntime
from fastapi import FastAPI
from pydantic import BaseModel

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession(
    os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
)


class Tensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Request(BaseModel):
    inputs: list[Tensor]


app = FastAPI()


@app.post("/v2/models/m/infer")
async def infer(request: Request) -> dict:
    tensor = request.inputs[0]
    x = np.array(tensor.data, np.float32).reshape(tensor.shape)
    (y,) = session.run(None, {"x": x})
    output = {"name": "y", "datatype": "FP32", "shape": list(y.shape), "data": y.ravel().tolist()}
    return {"model_name": "m", "outputs": [output]}
