"""What clients of a served model send and get, over real HTTP."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import statistics
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rig import onnx_models
from rig.serving import Serving, digest_of_file, tensor, under_way, until

BODY_LIMIT = 64 << 20
UNDER_WAY_LIMIT = 512
TRITON_CALLS = Path(onnx_models.__file__).with_name("triton_calls.py")
SAMPLES: dict[str, list[object]] = {
    "BOOL": [True, False],
    "BYTES": ["\N{GRINNING FACE} é", ""],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "UINT8": [0, 255],
    "UINT16": [0, 2**16 - 1],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "FP16": [0.5, -65504.0],
    "FP32": [0.25, -3.4028235e38],
    "FP64": [0.1, 1.7976931348623157e308],
}


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One process that serves a model per datatype, and some with a purpose."""
    folder = tmp_path_factory.mktemp("serving")
    with Serving(folder / "state") as process:
        for datatype in SAMPLES:
            name = datatype.lower()
            process.deploy(name, onnx_models.identity(folder / f"{name}.onnx", datatype))
        for make in (onnx_models.addition, onnx_models.division):
            process.deploy(make.__name__, make(folder / f"{make.__name__}.onnx"))
        process.deploy("constant", onnx_models.constant(folder / "constant.onnx", 7))
        process.deploy("shapeless", onnx_models.identity(folder / "s.onnx", shape=None))
        process.put("broken", onnx_models.zipmap(folder / "broken.onnx"))
        assert process.settle("broken")["state"] == "Failed"
        yield process


def half_request(serving: Serving, length: int, *headers: str) -> socket.socket:
    """A connection that has sent the head of an inference request, and no body yet."""
    lines = ("POST /v2/models/fp32/infer HTTP/1.1", "Host: x", f"Content-Length: {length}")
    client = socket.create_connection(("127.0.0.1", serving.port), timeout=20)
    client.sendall("\r\n".join((*lines, *headers, "", "")).encode())
    return client


def error_of(serving: Serving, document: object, model: str = "fp32") -> str:
    """The words of a 400."""
    response = serving.infer(model, document)
    assert response.status_code == 400, response.text
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    return str(response.json()["error"])


def fp32(**changes: object) -> dict[str, object]:
    """A right request of the model ``fp32``, with members of its input changed."""
    return {"inputs": [tensor("x", "FP32", [1, 2], [1, 2]) | changes]}


class TestDatatypes:
    @pytest.mark.parametrize("datatype", SAMPLES)
    def test_every_datatype_comes_back_as_it_was_sent(
        self, serving: Serving, datatype: str
    ) -> None:
        values = SAMPLES[datatype]
        for data in (values, [values]):
            document = {"id": "a1", "inputs": [tensor("x", datatype, [1, 2], data)]}
            response = serving.infer(datatype.lower(), document)
            assert response.status_code == 200, response.text
            answer = response.json()
            assert answer["id"] == "a1"
            assert answer["outputs"] == [tensor("y", datatype, [1, 2], values)]

    def test_a_batch_without_rows_gives_a_result_without_rows(self, serving: Serving) -> None:
        response = serving.infer("fp32", fp32(shape=[0, 2], data=[]))
        assert response.json()["outputs"] == [tensor("y", "FP32", [0, 2], [])]

    def test_an_input_that_declares_no_shape_takes_any(self, serving: Serving) -> None:
        response = serving.infer("shapeless", fp32(shape=[2, 1, 1], data=[1, 2]))
        assert response.json()["outputs"] == [tensor("y", "FP32", [2, 1, 1], [1.0, 2.0])]

    def test_results_that_are_not_finite_are_tokens_that_python_reads(
        self, serving: Serving
    ) -> None:
        document = {"inputs": [tensor("x", "FP32", [2], [0, -1])]}
        response = serving.infer("division", document)
        assert '"data":[Infinity,-1.0]' in response.text
        assert '"data":[0.0,NaN]' in response.text


@pytest.fixture(scope="module")
def calls(serving: Serving) -> dict[str, object]:
    """What tritonclient got, called in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(TRITON_CALLS), f"127.0.0.1:{serving.port}"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, object] = json.loads(done.stdout)
    return found


class TestTritonclient:
    def test_it_finds_the_server_and_the_models_ready(self, calls: dict[str, object]) -> None:
        assert [calls[name] for name in ("live", "ready", "model ready", "version ready")] == [
            True
        ] * 4
        assert [calls[name] for name in ("other version ready", "unknown ready")] == [False] * 2

    def test_it_reads_the_metadata(self, calls: dict[str, object]) -> None:
        assert isinstance(calls["server"], dict)
        assert "binary_tensor_data" in calls["server"]["extensions"]
        assert isinstance(calls["model"], dict)
        assert calls["model"]["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]

    def test_every_datatype_comes_back_as_bytes(self, calls: dict[str, object]) -> None:
        assert calls["binary"] == calls["expected"]

    def test_whole_numbers_truths_and_texts_come_back_as_json(
        self, calls: dict[str, object]
    ) -> None:
        assert isinstance(calls["json"], dict)
        assert isinstance(calls["expected"], dict)
        assert calls["json"] == {name: calls["expected"][name] for name in calls["json"]}
        assert len(calls["json"]) == 10

    def test_its_defaults_work(self, calls: dict[str, object]) -> None:
        assert isinstance(calls["expected"], dict)
        assert calls["default"] == calls["expected"]["FP32"]

    def test_every_way_of_sending_gives_the_same(self, calls: dict[str, object]) -> None:
        assert isinstance(calls["expected"], dict)
        row, whole = calls["expected"]["FP32"], calls["expected"]["INT64"]
        ways = ("version 1", "packed request", "packed answer", "aio")
        assert [calls[way] for way in ways] == [row] * 4
        assert [calls[way] for way in ("bytes to json", "json to bytes")] == [whole] * 2
        assert calls["at once"] == 8

    def test_it_reads_configuration_statistics_and_index(self, calls: dict[str, object]) -> None:
        config, statistics, index = (calls[name] for name in ("config", "statistics", "index"))
        assert isinstance(config, dict)
        assert isinstance(statistics, dict)
        assert isinstance(index, list)
        assert config["max_batch_size"] == 32
        assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [2]}]
        (stats,) = statistics["model_stats"]
        assert stats["inference_count"] >= stats["inference_stats"]["success"]["count"] > 0
        states = {entry["name"]: entry["state"] for entry in index}
        assert (states["fp32"], states["broken"]) == ("READY", "UNAVAILABLE")

    def test_its_errors_carry_the_status_and_the_words(self, calls: dict[str, object]) -> None:
        assert calls["wrong shape"] == [
            "400",
            'model fp32: input "x": shape [1, 3] has 3 on axis 1, not 2;'
            ' the model takes "x" FP32 [-1, 2]',
        ]
        assert isinstance(calls["unknown model"], list)
        assert calls["unknown model"][0] == "404"


class TestWrongRequests:
    """The module's own tests have every case; here are those that only a whole server shows."""

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"name": "w"}, 'input "w": the model takes "x" FP32 [-1, 2]'),
            ({"datatype": "FP64"}, 'datatype is "FP64"; the model takes "x" FP32 [-1, 2]'),
            ({"shape": [2]}, "shape [2] has 1 axes, not 2"),
            ({"shape": [1, 3], "data": [1, 2, 3]}, "shape [1, 3] has 3 on axis 1, not 2"),
            ({"shape": [-1, 2]}, "shape has -1"),
            ({"shape": [10**12, 2]}, "shape has 1000000000000"),
            ({"data": [1]}, "data has 1 element; shape [1, 2] needs 2"),
            ({"data": [[1], [2]]}, "nested otherwise"),
            ({"data": [1, True]}, "element 1 is true; FP32 takes a number"),
            ({"data": [1, 1e39]}, "out of the range of FP32"),
        ],
    )
    def test_a_wrong_input_is_named_with_what_the_model_takes(
        self, serving: Serving, changes: dict[str, object], words: str
    ) -> None:
        assert words in error_of(serving, fp32(**changes))

    @pytest.mark.parametrize("body", ["", "{", "[]", '{"inputs": [NaN]}', "[" * 9999, b"\xff"])
    def test_a_body_that_is_no_request_is_a_400(self, serving: Serving, body: str | bytes) -> None:
        assert error_of(serving, body).startswith("model fp32: the body ")

    def test_inputs_whose_sizes_do_not_go_together_are_the_clients_fault(
        self, serving: Serving
    ) -> None:
        inputs = [tensor("left", "FP32", [2], [1, 2]), tensor("right", "FP32", [3], [1, 2, 3])]
        words = error_of(serving, {"inputs": inputs}, "addition")
        assert words.startswith("model addition: it cannot run on this input: ")
        assert "Traceback" not in words

    def test_an_unknown_output_is_a_400(self, serving: Serving) -> None:
        words = error_of(serving, fp32() | {"outputs": [{"name": "q"}]})
        assert 'output "q": the model gives "y" FP32 [-1, 2]' in words

    def test_outputs_come_in_the_order_asked_for(self, serving: Serving) -> None:
        asked = fp32() | {"outputs": [{"name": "b"}, {"name": "a"}]}
        outputs = serving.infer("constant", asked).json()["outputs"]
        assert [output["name"] for output in outputs] == ["b", "a"]

    @pytest.mark.parametrize("header", ["-1", "x", "²", "9" * 30, "99999"])
    def test_a_wrong_length_of_the_json_is_a_400(self, serving: Serving, header: str) -> None:
        response = serving.client.post(
            "/v2/models/fp32/infer",
            content=json.dumps(fp32()),
            headers=[(b"Inference-Header-Content-Length", header.encode())],
        )
        assert response.status_code == 400
        assert "Inference-Header-Content-Length" in response.json()["error"]

    def test_a_body_over_the_limit_is_a_413(self, serving: Serving) -> None:
        response = serving.infer("fp32", b" " * (BODY_LIMIT + 1))
        assert response.status_code == 413
        assert str(BODY_LIMIT) in response.json()["error"]

    @pytest.mark.parametrize(
        ("packing", "body", "status", "words"),
        [
            ("br", b"", 415, "Content-Encoding br is not offered"),
            ("gzip", b"\x1f\x8b", 400, "not one whole piece of gzip"),
            ("gzip", b"plain", 400, "the body is not gzip"),
            ("gzip", gzip.compress(b"{}", mtime=0) + b"more", 400, "not one whole piece"),
            ("gzip", gzip.compress(bytes(BODY_LIMIT + 1), mtime=0), 413, str(BODY_LIMIT)),
        ],
    )
    def test_a_body_that_cannot_be_unpacked_is_refused(
        self, serving: Serving, packing: str, body: bytes, status: int, words: str
    ) -> None:
        response = serving.infer("fp32", body, {"content-encoding": packing})
        assert response.status_code == status
        assert words in response.json()["error"]

    @pytest.mark.parametrize("packing", ["gzip", "deflate"])
    def test_a_packed_body_is_unpacked(self, serving: Serving, packing: str) -> None:
        plain = json.dumps(fp32()).encode()
        body = gzip.compress(plain) if packing == "gzip" else zlib.compress(plain)
        response = serving.infer("fp32", body, {"content-encoding": packing})
        assert response.json()["outputs"] == [tensor("y", "FP32", [1, 2], [1.0, 2.0])]

    def test_a_large_answer_is_packed_for_who_takes_it(self, serving: Serving) -> None:
        asked = fp32(shape=[5000, 2], data=[1.5] * 10_000)
        packed = serving.infer("fp32", asked)
        assert packed.headers["content-encoding"] == "gzip"
        plain = serving.infer("fp32", asked, {"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.json() == packed.json()

    def test_what_curl_sends_by_default_is_taken(self, serving: Serving) -> None:
        form = {"content-type": "application/x-www-form-urlencoded"}
        assert serving.infer("fp32", fp32(), form).status_code == 200


class TestRoutes:
    @pytest.mark.parametrize("path", ["/v2", "/v2/"])
    def test_the_server_says_what_it_is(self, serving: Serving, path: str) -> None:
        assert serving.client.get(path).json() == {
            "name": "windlass",
            "version": serving.announcement["version"],
            "extensions": [
                "binary_tensor_data",
                "statistics",
                "model_repository",
                "model_configuration",
            ],
        }

    @pytest.mark.parametrize("path", ["live", "ready"])
    def test_the_server_says_that_it_is_well(self, serving: Serving, path: str) -> None:
        response = serving.client.get(f"/v2/health/{path}")
        assert (response.status_code, response.json()) == (200, {path: True})

    def test_the_version_is_the_start_of_the_digest(self, serving: Serving) -> None:
        digest = serving.view("fp32")["digest"]
        metadata = serving.client.get("/v2/models/fp32").json()
        (version,) = metadata["versions"]
        assert str(digest) == f"sha256:{version}{str(digest)[19:]}"
        assert metadata["platform"] == "onnxruntime_onnx"
        assert metadata["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}]
        path = f"/v2/models/fp32/versions/{version}"
        assert serving.client.get(path).json() == metadata
        assert serving.client.get(f"{path}/ready").json() == {"name": "fp32", "ready": True}
        answer = serving.client.post(f"{path}/infer", json=fp32()).json()
        assert answer["model_version"] == version

    @pytest.mark.parametrize("rest", ["", "/ready", "/infer"])
    @pytest.mark.parametrize("model", ["none", "a%22%5Cb", "fp32/versions/2"])
    def test_an_unknown_model_or_version_is_a_404(
        self, serving: Serving, model: str, rest: str
    ) -> None:
        method = "POST" if rest == "/infer" else "GET"
        response = serving.client.request(method, f"/v2/models/{model}{rest}", json={})
        assert response.status_code == 404
        assert set(response.json()) == {"error"}

    @pytest.mark.parametrize("path", ["/", "/v1", "/v2/models", "/v2/models/fp32/", "/docs"])
    def test_an_unknown_route_is_a_404_that_says_what_there_is(
        self, serving: Serving, path: str
    ) -> None:
        response = serving.client.get(path)
        assert response.status_code == 404
        assert "/v2/models/NAME/infer" in response.json()["error"]

    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [("GET", "/v2/models/fp32/infer", {"POST"}), ("POST", "/v2", {"GET", "HEAD"})],
    )
    def test_a_wrong_method_is_a_405_that_says_which_is_right(
        self, serving: Serving, method: str, path: str, allowed: set[str]
    ) -> None:
        response = serving.client.request(method, path)
        assert response.status_code == 405
        assert set(response.headers["allow"].split(", ")) == allowed
        assert response.json()["error"].endswith(f", not {method}")

    @pytest.mark.parametrize("rest", ["", "/ready", "/infer"])
    def test_a_model_that_is_not_ready_is_a_503_that_says_why(
        self, serving: Serving, rest: str
    ) -> None:
        method = "POST" if rest == "/infer" else "GET"
        response = serving.client.request(method, f"/v2/models/broken{rest}", json={})
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert "export a scikit-learn classifier with zipmap=False" in response.json()["error"]


class TestRudeClients:
    def test_a_large_body_that_asks_first_is_refused_before_it_comes(
        self, serving: Serving
    ) -> None:
        with half_request(serving, BODY_LIMIT + 1, "Expect: 100-continue") as client:
            assert client.recv(1000).startswith(b"HTTP/1.1 413 ")

    def test_clients_that_hang_up_leave_nothing_behind(self, serving: Serving) -> None:
        for length in (1, 1000):
            half_request(serving, length).close()
        whole = json.dumps(fp32()).encode()
        with half_request(serving, len(whole)) as client:
            client.sendall(whole)
        until(lambda: under_way(serving) == 0, "nothing is under way")
        assert serving.infer("fp32", fp32()).status_code == 200

    def test_more_requests_than_it_takes_on_are_told_to_come_again(self, serving: Serving) -> None:
        with contextlib.ExitStack() as waiting:
            for _ in range(UNDER_WAY_LIMIT):
                waiting.enter_context(half_request(serving, 1))
            until(lambda: under_way(serving) == UNDER_WAY_LIMIT, "it is full")
            response = serving.infer("fp32", fp32())
            assert response.status_code == 503
            assert response.headers["retry-after"] == "1"
            assert "try again" in response.json()["error"]
            assert serving.client.get("/v2/health/live").status_code == 200
        until(lambda: serving.infer("fp32", fp32()).status_code == 200, "it takes requests again")


class TestSpeed:
    def test_an_answer_does_not_wait_for_a_delayed_acknowledgement(self, serving: Serving) -> None:
        seconds = [serving.infer("fp32", fp32()).elapsed.total_seconds() for _ in range(21)]
        assert statistics.median(seconds) < 0.03


class TestNumbers:
    def test_requests_are_counted_by_deployment_and_code(
        self, serving: Serving, tmp_path: Path
    ) -> None:
        model = onnx_models.identity(tmp_path / "counted.onnx", shape=(None, 2))
        serving.deploy("counted", model)
        for document in (fp32(), fp32(), {}):
            serving.infer("counted", document)
        assert serving.infer("nobody", {}).status_code == 404
        page = serving.client.get("/metrics")
        samples = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(page.text)
            for sample in family.samples
        }
        assert samples["windlass_serving_requests_total", "200", "counted"] == 2
        assert samples["windlass_serving_requests_total", "400", "counted"] == 1
        assert samples["windlass_serving_requests_total", "", "404"] >= 1
        assert samples["windlass_serving_request_duration_seconds_count", "counted"] == 3
        bucket = "windlass_serving_request_duration_seconds_bucket"
        assert (bucket, "0.0001", "counted") in samples
        assert samples["windlass_serving_loads_total", "counted", "ok"] == 1
        assert samples[("windlass_serving_requests_in_flight",)] == 0
        assert "nobody" not in page.text
        assert serving.view("counted")["requests"] == {"ok": 2, "error": 1}
        assert serving.view("counted")["digest"] == digest_of_file(model)
