"""Models of several files, from a commit to an answer: a folder, and a Job's output."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from rig.project import Project

SCRIPT = """
import os, pathlib
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

def write(folder, value):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True)
    weights = np.full((4, 256), value, np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 256])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    beside = {"save_as_external_data": True, "location": "w.data", "size_threshold": 0}
    onnx.save(model, folder / "model.onnx", **beside)
    assert (folder / "w.data").stat().st_size == 4096
"""
SPECS = """
apiVersion: windlass/v1
kind: Job
metadata: {name: train}
spec:
  entrypoint: train.py
  outputs: {model: trained}
---
apiVersion: windlass/v1
kind: Model
metadata: {name: trained}
spec: {source: {job: {name: train, output: model}}}
---
apiVersion: windlass/v1
kind: Model
metadata: {name: given}
spec: {source: {file: given}}
---
apiVersion: windlass/v1
kind: Deployment
metadata: {name: trained}
spec: {model: trained}
---
apiVersion: windlass/v1
kind: Deployment
metadata: {name: given}
spec: {model: given, options: {prepack: false}}
"""


@pytest.mark.timeout(400)
def test_weights_beside_the_model_come_through(tmp_path: Path) -> None:
    specs = tmp_path / "specs"
    specs.mkdir()
    (specs / "specs.yaml").write_text(SPECS)
    (specs / "train.py").write_text(SCRIPT + 'write(os.environ["WINDLASS_OUTPUT_MODEL"], 2.0)\n')
    names: dict[str, object] = {}
    exec(SCRIPT, names)  # the same program makes the folder beside the spec
    write = names["write"]
    assert callable(write)
    write(specs / "given", 3.0)
    project = Project(tmp_path / "project", specs)
    project.up()
    try:
        for name, value in (("trained", 2.0), ("given", 3.0)):
            project.until(lambda n=name: project.ready(f"Deployment/{n}"), f"{name} is served", 120)  # type: ignore[misc]  # mypy: default
            inputs = [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 1, 1, 1]}]
            url = f"http://127.0.0.1:{project.serving_port}/v2/models/{name}/infer"
            answer = httpx.post(url, json={"inputs": inputs}, timeout=30, trust_env=False)
            assert answer.json()["outputs"][0]["data"] == [4 * value] * 256
    finally:
        project.close()
