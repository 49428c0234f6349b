"""The simpler ways to ask: the V1 form, CSV, lines, SageMaker's routes; and the repository."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rig import onnx_models
from rig.serving import Serving, tensor

SAGEMAKER = "application/vnd.sagemaker-triton.binary+json"


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("forms")
    with Serving(folder / "state") as process:
        assert process.client.get("/ping").status_code == 503, "nothing is served yet"
        process.deploy("numbers", onnx_models.identity(folder / "n.onnx"))
        process.deploy("texts", onnx_models.identity(folder / "t.onnx", "BYTES", (None, 1)))
        process.deploy("twice", onnx_models.constant(folder / "c.onnx", 7))
        process.deploy("sum", onnx_models.addition(folder / "a.onnx"))
        yield process


def predict(serving: Serving, model: str, body: object, kind: str = "") -> httpx.Response:
    content = body if isinstance(body, str) else json.dumps(body)
    headers = {"content-type": kind} if kind else {}
    return serving.client.post(f"/v1/models/{model}:predict", content=content, headers=headers)


class TestV1:
    def test_instances_give_predictions(self, serving: Serving) -> None:
        rows = [[1.0, 2.0], [3.0, 4.0]]
        assert predict(serving, "numbers", {"instances": rows}).json() == {"predictions": rows}

    def test_several_outputs_are_named_in_each_prediction(self, serving: Serving) -> None:
        answer = predict(serving, "twice", {"instances": [[1, 2]]}).json()
        assert answer == {"predictions": [{"a": [7.0, 7.0], "b": [7.0, 7.0]}]}

    def test_several_inputs_are_named_in_each_instance(self, serving: Serving) -> None:
        rows = [{"left": 1, "right": 2}, {"left": 3, "right": 4}]
        assert predict(serving, "sum", {"instances": rows}).json() == {"predictions": [3.0, 7.0]}

    def test_inputs_give_outputs(self, serving: Serving) -> None:
        columns = {"left": [1, 3], "right": [2, 4]}
        assert predict(serving, "sum", {"inputs": columns}).json() == {"outputs": [3.0, 7.0]}
        assert predict(serving, "numbers", {"inputs": [[1, 2]]}).json() == {"outputs": [[1.0, 2.0]]}

    @pytest.mark.parametrize(
        ("model", "body", "words"),
        [
            ("numbers", {}, 'the member "instances" is missing'),
            ("numbers", {"instances": []}, "send an array of rows"),
            ("numbers", {"instances": 1}, "instances is 1"),
            ("numbers", {"instances": [[1, 2], [3]]}, "row 1 of axis 1 has 1 elements, not 2"),
            ("numbers", {"instances": [[1, "2"]]}, 'element 1 is "2"; FP32 takes a number'),
            ("numbers", {"instances": [[1, 2, 3]]}, "has 3 on axis 1, not 2"),
            ("numbers", {"instances": [[[]]]}, "axes, not 2"),
            ("sum", {"instances": [[1]]}, "the model takes 2 inputs; name each one"),
            ("sum", {"instances": [{"left": 1, "right": 2}, {"left": 1}]}, "instances[1] must be"),
            ("sum", {"inputs": {"left": [1]}}, "the model takes"),
            ("numbers", "[", "the body is not JSON"),
        ],
    )
    def test_what_is_wrong_is_said(
        self, serving: Serving, model: str, body: object, words: str
    ) -> None:
        response = predict(serving, model, body)
        assert response.status_code == 400
        assert words in response.json()["error"]

    def test_the_status_is_that_of_both_families(self, serving: Serving) -> None:
        status = serving.client.get("/v1/models/numbers").json()
        assert (status["name"], status["ready"]) == ("numbers", True)
        assert status["model_version_status"][0]["state"] == "AVAILABLE"
        assert "numbers" in serving.client.get("/v1/models").json()["models"]
        assert serving.client.get("/v1/models/none").status_code == 404


class TestLines:
    def test_csv_gives_csv(self, serving: Serving) -> None:
        response = predict(serving, "numbers", "1,2\n3.5,-4e1\n", "text/csv; charset=utf-8")
        assert response.text == "1.0,2.0\n3.5,-40.0\n"
        assert response.headers["content-type"] == "text/csv"

    def test_a_text_a_line_is_a_row(self, serving: Serving) -> None:
        response = predict(serving, "texts", 'good\nso, so "é"\n', "text/plain")
        assert response.text.splitlines() == ["good", '"so, so ""é"""']

    @pytest.mark.parametrize(
        ("body", "words"),
        [("1,x\n", "line 1 has something that is no number"), ("1\n", "not 2"), ("", "not 2")],
    )
    def test_what_is_wrong_is_said(self, serving: Serving, body: str, words: str) -> None:
        response = predict(serving, "numbers", body, "text/csv")
        assert response.status_code == 400
        assert words in response.json()["error"]


class TestSageMaker:
    def invoke(self, serving: Serving, body: str | bytes, **headers: str) -> httpx.Response:
        named = {"x-amzn-sagemaker-target-model": "numbers"}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        return serving.client.post("/invocations", content=body, headers=named)

    def test_it_is_healthy_when_something_is_served(self, serving: Serving) -> None:
        response = serving.client.get("/ping")
        assert (response.status_code, response.content) == (200, b"")

    def test_every_form_is_taken(self, serving: Serving) -> None:
        v2 = {"inputs": [tensor("x", "FP32", [1, 2], [1, 2])]}
        assert self.invoke(serving, json.dumps(v2)).json()["outputs"][0]["data"] == [1.0, 2.0]
        v1 = {"instances": [[1, 2]]}
        assert self.invoke(serving, json.dumps(v1)).json() == {"predictions": [[1.0, 2.0]]}
        assert self.invoke(serving, "1,2", content_type="text/csv").text == "1.0,2.0\n"

    def test_what_curl_says_of_any_body_says_nothing(self, serving: Serving) -> None:
        kind = "application/x-www-form-urlencoded"
        v2 = json.dumps({"inputs": [tensor("x", "FP32", [1, 2], [1, 2])]})
        answer = self.invoke(serving, v2, content_type=kind).json()
        assert answer["outputs"][0]["data"] == [1.0, 2.0]
        v1 = self.invoke(serving, json.dumps({"instances": [[1, 2]]}), content_type=kind)
        assert v1.json() == {"predictions": [[1.0, 2.0]]}

    def test_binary_tensors_say_the_length_of_their_json_in_the_type(
        self, serving: Serving
    ) -> None:
        entry = tensor("x", "FP32", [1, 2], None) | {"parameters": {"binary_data_size": 8}}
        del entry["data"]
        head = json.dumps({"inputs": [entry]}).encode()
        body = head + b"\0\0\x80\x3f\0\0\0\x40"
        kind = f"{SAGEMAKER};json-header-size={len(head)}"
        response = self.invoke(serving, body, content_type=kind)
        assert response.json()["outputs"][0]["data"] == [1.0, 2.0]
        for size in ("-1", "2147483648", "x", ""):
            kind = f"{SAGEMAKER};json-header-size={size}"
            assert self.invoke(serving, body, content_type=kind).status_code == 400
        assert self.invoke(serving, body, content_type=SAGEMAKER).status_code == 400

    def test_with_several_models_one_must_be_named(self, serving: Serving) -> None:
        response = serving.client.post("/invocations", json={"instances": [[1, 2]]})
        assert response.status_code == 404


class TestRepository:
    def test_the_specs_say_what_is_loaded(self, serving: Serving) -> None:
        index = serving.client.post("/v2/repository/index", json={"ready": True}).json()
        assert {entry["name"] for entry in index} == {"numbers", "texts", "twice", "sum"}
        models = "/v2/repository/models"
        assert serving.client.post(f"{models}/sum/load").status_code == 200
        refused = serving.client.post(f"{models}/sum/unload")
        assert refused.status_code == 403
        assert "because its spec says so" in refused.json()["error"]
        assert serving.client.post(f"{models}/none/load").status_code == 404
        assert serving.client.post("/v2/repository/index", content="[").status_code == 400


def test_a_provider_that_is_not_there_is_said_with_those_that_are(
    serving: Serving, tmp_path: Path
) -> None:
    model = onnx_models.identity(tmp_path / "m.onnx")
    serving.put("gpu", model, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    view = serving.settle("gpu")
    assert view["state"] == "Failed"
    assert "CUDAExecutionProvider is not available in this ONNX Runtime" in str(view["message"])
    assert "CPUExecutionProvider" in str(view["message"])
