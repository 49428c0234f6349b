"""Versions of a Deployment come and go while clients ask, and no request is lost or mixed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from rig import onnx_models
from rig.serving import Serving, digest_of_file, tensor, under_way, until

SWAPS = 50
CLIENTS = 8
ONE_ROW = {"inputs": [tensor("x", "FP32", [1, 2], [0, 0])]}


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    with Serving(tmp_path / "state") as process:
        yield process


def version(path: Path) -> str:
    """What clients see of a model file."""
    return digest_of_file(path).removeprefix("sha256:")[:12]


def rounds(count: int) -> dict[str, object]:
    """A request that keeps the model ``loop`` busy."""
    return {"inputs": [tensor("rounds", "INT64", [1], [count])]}


class Clients:
    """Several clients that ask without a pause until told to stop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self.answers: list[httpx.Response] = []
        self.faults: list[Exception] = []

    def __enter__(self) -> Clients:
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def ask_on(self) -> None:
        """Wait until there are more answers than now."""
        seen = len(self.answers) + len(self.faults)
        until(lambda: len(self.answers) + len(self.faults) > seen, "the clients ask on")

    def _ask(self) -> None:
        with httpx.Client(timeout=30) as client:
            while not self._stop.is_set():
                try:
                    self.answers.append(client.post(self._url, json=ONE_ROW))
                except httpx.HTTPError as error:
                    self.faults.append(error)


class TestSwaps:
    def test_fifty_swaps_under_load_lose_no_request_and_mix_no_answer(
        self, serving: Serving, tmp_path: Path
    ) -> None:
        models = [onnx_models.constant(tmp_path / f"{value}.onnx", value) for value in range(5)]
        expected = {version(path): float(value) for value, path in enumerate(models)}
        serving.deploy("m", models[0])
        with Clients(f"http://127.0.0.1:{serving.port}/v2/models/m/infer") as clients:
            for swap in range(1, SWAPS + 1):
                serving.deploy("m", models[swap % len(models)])
                clients.ask_on()
        assert clients.faults == []
        assert {answer.status_code for answer in clients.answers} == {200}
        for answer in clients.answers:
            document = answer.json()
            value = expected[document["model_version"]]
            assert [output["data"] for output in document["outputs"]] == [[value] * 2] * 2
        assert {answer.json()["model_version"] for answer in clients.answers} == set(expected)
        assert serving.view("m")["requests"] == {"ok": len(clients.answers), "error": 0}

    def test_a_request_under_way_at_a_swap_ends_on_its_own_version(
        self, serving: Serving, tmp_path: Path
    ) -> None:
        old = onnx_models.loop(tmp_path / "old.onnx")
        new = onnx_models.constant(tmp_path / "new.onnx", 1)
        serving.deploy("m", old)
        with ThreadPoolExecutor() as pool:
            slow = pool.submit(serving.infer, "m", rounds(1_000_000))
            until(lambda: under_way(serving) == 1, "the request runs")
            serving.deploy("m", new)
            assert serving.infer("m", ONE_ROW).json()["model_version"] == version(new)
            assert not slow.done(), "the request ended before the swap; make it longer"
            answer = slow.result(60).json()
        assert answer["model_version"] == version(old)
        assert answer["outputs"][0]["data"] == [1_000_000]

    def test_memory_of_old_versions_goes_back_to_the_system(
        self, serving: Serving, tmp_path: Path
    ) -> None:
        models = [onnx_models.big(tmp_path / f"{value}.onnx", 48, value) for value in (1, 2)]
        serving.deploy("m", models[0])
        once = resident(serving)
        for swap in range(1, 9):
            serving.deploy("m", models[swap % 2])
        until(lambda: resident(serving) < once * 1.2, "memory is as after one load")


def resident(serving: Serving) -> int:
    """KiB of memory that the process holds."""
    status = Path(f"/proc/{serving.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)


class TestFailures:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "has no bytes"),
            (b"not a model at all", "is no ONNX model"),
            (None, "is missing"),
            ("folder", "is not a file"),
            ("truncated", "is no ONNX model"),
            ("fussy", "fails a probe with zeros (x [1])"),
            ("zipmap", "output p is seq(map(int64,tensor(float)))"),
        ],
    )
    def test_a_bad_file_is_said_to_be_bad_and_harms_nothing(
        self, serving: Serving, tmp_path: Path, content: bytes | str | None, words: str
    ) -> None:
        path = tmp_path / "bad.onnx"
        if content == "folder":
            path.mkdir()
        elif content == "truncated":
            path.write_bytes(onnx_models.identity(path).read_bytes()[:-9])
        elif content in ("fussy", "zipmap"):
            (onnx_models.fussy if content == "fussy" else onnx_models.zipmap)(path)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        digest = "sha256:" + "0" * 64
        serving.put("bad", path, digest=digest)
        view = serving.settle("bad")
        assert (view["state"], view["reason"]) == ("Failed", "InvalidArtifact")
        assert (view["digest"], view["failed_digest"]) == (None, digest)
        assert words in str(view["message"])
        assert view["signature"] is None
        assert serving.client.get("/v2/health/ready").status_code == 200

    def test_a_failed_update_keeps_the_old_version_and_says_so(
        self, serving: Serving, tmp_path: Path
    ) -> None:
        good = onnx_models.constant(tmp_path / "good.onnx", 1)
        bad = tmp_path / "bad.onnx"
        bad.write_bytes(b"junk")
        serving.deploy("m", good)
        serving.put("m", bad)
        view = serving.settle("m")
        assert (view["state"], view["reason"]) == ("Live", "UpdateFailed")
        assert view["digest"] == digest_of_file(good)
        assert view["failed_digest"] == digest_of_file(bad)
        assert serving.infer("m", ONE_ROW).json()["model_version"] == version(good)

        digest = digest_of_file(bad)
        onnx_models.constant(bad, 2)
        serving.put("m", bad, digest=digest)
        view = serving.settle("m")
        assert (view["digest"], view["failed_digest"], view["reason"]) == (digest, None, None)

    def test_going_back_to_what_serves_forgets_the_failure_and_loads_nothing(
        self, serving: Serving, tmp_path: Path
    ) -> None:
        good = onnx_models.constant(tmp_path / "good.onnx", 1)
        serving.deploy("m", good)
        serving.put("m", tmp_path / "missing.onnx", digest="sha256:" + "1" * 64)
        assert serving.settle("m")["reason"] == "UpdateFailed"
        digest = digest_of_file(good)
        good.unlink()
        view = serving.put("m", good, digest=digest).json()
        assert (view["state"], view["failed_digest"], view["message"]) == ("Live", None, "")


class TestOrders:
    def test_a_newer_order_supersedes_the_one_that_is_being_loaded(
        self, serving: Serving, tmp_path: Path
    ) -> None:
        first = onnx_models.constant(tmp_path / "first.onnx", 1)
        slow = onnx_models.big(tmp_path / "slow.onnx", 120)
        last = onnx_models.constant(tmp_path / "last.onnx", 3)
        serving.deploy("m", first)
        digest = digest_of_file(slow)
        assert serving.put("m", slow, digest=digest).json()["pending_digest"] == digest
        view = serving.put("m", last).json()
        assert (view["state"], view["digest"]) == ("Progressing", digest_of_file(first))
        assert view["pending_digest"] == digest_of_file(last)
        assert serving.infer("m", ONE_ROW).json()["model_version"] == version(first)
        assert serving.settle("m")["digest"] == digest_of_file(last)
        page = serving.client.get("/metrics").text
        assert 'windlass_serving_loads_total{deployment="m",result="superseded"} 1.0' in page
        assert 'windlass_serving_loads_total{deployment="m",result="ok"} 2.0' in page

    def test_the_same_order_again_loads_nothing(self, serving: Serving, tmp_path: Path) -> None:
        path = onnx_models.constant(tmp_path / "m.onnx", 1)
        serving.put("m", path)
        serving.put("m", path)
        serving.settle("m")
        assert serving.put("m", path).json()["state"] == "Live"
        page = serving.client.get("/metrics").text
        assert 'windlass_serving_loads_total{deployment="m",result="ok"} 1.0' in page

    def test_another_owner_may_neither_change_nor_remove(
        self, serving: Serving, tmp_path: Path
    ) -> None:
        path = onnx_models.constant(tmp_path / "m.onnx", 1)
        serving.deploy("m", path)
        refusals = serving.put("m", path, uid="u2"), serving.admin.delete("/deployments/m?uid=u2")
        for response in refusals:
            assert response.status_code == 409
            assert "belongs to uid u1 (Deployment/default/m), not to u2" in response.json()["error"]
        assert serving.view("m")["uid"] == "u1"

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"uid": ""}, "uid must be a text"),
            ({"key": 1}, "key must be a text"),
            ({"digest": "abc"}, "digest must be sha256:"),
            ({"model_path": "m.onnx"}, "model_path must be an absolute path"),
            ({"options": {"threads": 0}}, "options must be"),
            ({"options": {"gpu": 1}}, "options must be"),
            ({"options": []}, "options must be"),
            ({"extra": 1}, "unknown: extra"),
        ],
    )
    def test_a_wrong_order_is_refused_with_what_is_wrong(
        self, serving: Serving, change: dict[str, object], words: str
    ) -> None:
        digest = "sha256:" + "0" * 64
        order = {"install": "i", "uid": "u", "key": "k", "digest": digest, "model_path": "/m"}
        response = serving.admin.put("/deployments/m", json=order | change)
        assert response.status_code == 400
        assert words in response.json()["error"]
        assert serving.admin.get("/deployments").json() == {"deployments": []}

    def test_a_wrong_name_or_no_json_is_refused(self, serving: Serving) -> None:
        assert serving.admin.put("/deployments/-a", json={}).status_code == 400
        assert serving.admin.put("/deployments/a", content="{").status_code == 400
        assert serving.admin.delete("/deployments/a").status_code == 400
        assert serving.admin.get("/nothing").status_code == 404
        assert serving.admin.post("/deployments").status_code == 405


class TestRemoval:
    def test_an_idle_deployment_is_gone_at_once(self, serving: Serving, tmp_path: Path) -> None:
        serving.deploy("m", onnx_models.constant(tmp_path / "m.onnx", 1))
        assert serving.admin.delete("/deployments/m?uid=u1").status_code == 200
        assert serving.infer("m", ONE_ROW).status_code == 404
        assert serving.admin.delete("/deployments/m?uid=u1").status_code == 404
        assert serving.admin.get("/deployments").json() == {"deployments": []}

    def test_a_busy_deployment_drains_and_its_name_is_free_meanwhile(
        self, serving: Serving, tmp_path: Path
    ) -> None:
        serving.deploy("m", onnx_models.loop(tmp_path / "m.onnx"))
        with ThreadPoolExecutor() as pool:
            slow = pool.submit(serving.infer, "m", rounds(1_000_000))
            until(lambda: under_way(serving) == 1, "the request runs")
            assert serving.admin.delete("/deployments/m?uid=u1").status_code == 202
            assert serving.admin.delete("/deployments/m?uid=u1").status_code == 202
            assert serving.infer("m", ONE_ROW).status_code == 404
            other = onnx_models.constant(tmp_path / "other.onnx", 1)
            assert serving.put("m", other, uid="u2").status_code == 202
            serving.settle("m")
            assert serving.infer("m", ONE_ROW).status_code == 200
            assert serving.admin.delete("/deployments/m?uid=u2").status_code == 200
            assert serving.put("m", other, uid="u1").status_code == 202
            assert serving.admin.delete("/deployments/m?uid=u1").status_code in (200, 202)
            assert serving.infer("m", ONE_ROW).status_code == 404
            assert serving.put("m", other, uid="u2").status_code == 202
            assert slow.result(60).status_code == 200
        until(
            lambda: serving.admin.delete("/deployments/m?uid=u1").status_code == 409,
            "the old one is gone, and the name is the other owner's",
        )

    def test_a_deployment_that_is_being_loaded_can_be_removed(
        self, serving: Serving, tmp_path: Path
    ) -> None:
        serving.put("m", onnx_models.big(tmp_path / "m.onnx", 120), digest="sha256:" + "0" * 64)
        assert serving.infer("m", ONE_ROW).status_code == 503
        assert serving.admin.delete("/deployments/m?uid=u1").status_code == 202
        until(
            lambda: serving.admin.delete("/deployments/m?uid=u1").status_code == 404,
            "the load ends and nothing is left",
        )
        assert serving.infer("m", ONE_ROW).status_code == 404
