"""Canaries, shadows, replicas that follow the load, models that sleep: in a real process."""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from rig import onnx_models
from rig.serving import Serving, digest_of_file, tensor, until

ROW = {"inputs": [tensor("x", "FP32", [1, 2], [0, 0])]}
CANARY = {
    "way": "canary",
    "weight": 50,
    "duration": 1.5,
    "min_requests": 20,
    "max_latency_ratio": 50.0,
}
SHADOW = {"way": "shadow", "weight": 100, "duration": 1.5, "min_requests": 1}


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    with Serving(tmp_path / "state") as process:
        yield process


class Load:
    """Clients that ask all the time, some ``pause`` seconds apart."""

    def __init__(self, serving: Serving, clients: int = 2, pause: float = 0.005) -> None:
        self._url = f"http://127.0.0.1:{serving.port}/v2/models/m/infer"
        self._stop = threading.Event()
        self._pause = pause
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        self.seen: collections.Counter[object] = collections.Counter()
        """Answers by their first number, refusals by their status."""

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self) -> None:
        with httpx.Client(timeout=30) as client:
            while not self._stop.wait(self._pause):
                response = client.post(self._url, json=ROW)
                right = response.is_success
                found = response.json()["outputs"][0]["data"][0] if right else response.status_code
                self.seen[found] += 1


def versions(folder: Path) -> tuple[Path, Path]:
    return tuple(onnx_models.constant(folder / f"{n}.onnx", n) for n in (1, 2))  # type: ignore[return-value]  # two


class TestCanary:
    def test_one_that_does_well_takes_a_share_and_then_all(
        self, serving: Serving, tmp_path: Path
    ) -> None:
        old, new = versions(tmp_path)
        serving.deploy("m", old)
        with Load(serving) as load:
            serving.put("m", new, rollout=CANARY)
            until(lambda: load.seen[2.0] > 0, "the canary answers")
            view = serving.view("m")
            assert (view["state"], view["digest"]) == ("Progressing", digest_of_file(old))
            assert view["pending_digest"] == digest_of_file(new)
            assert "is tried as a canary with 50 % of the requests" in str(view["message"])
            assert f"({CANARY['min_requests']} are needed)" in str(view["message"])
            ones, twos = load.seen[1.0], load.seen[2.0]
            until(lambda: load.seen[2.0] > twos + 5, "it goes on")
            assert load.seen[1.0] > ones, "the old version has its share"
            until(lambda: serving.view("m")["state"] == "Live", "the verdict")
            assert serving.view("m")["digest"] == digest_of_file(new)
        assert set(load.seen) == {1.0, 2.0}, "no request failed"

    def test_one_that_refuses_requests_goes_and_the_old_version_serves_on(
        self, serving: Serving, tmp_path: Path
    ) -> None:
        old, _ = versions(tmp_path)
        other = onnx_models.constant(tmp_path / "other.onnx", 2, width=3)
        serving.deploy("m", old)
        with Load(serving) as load:
            serving.put("m", other, rollout=CANARY)
            until(lambda: serving.view("m")["failed_digest"] is not None, "the verdict")
            view = serving.view("m")
        assert (view["state"], view["reason"]) == ("Live", "UpdateFailed")
        assert (view["digest"], view["pending_digest"]) == (digest_of_file(old), None)
        assert str(view["message"]).startswith("the canary refused ")
        assert set(load.seen) == {1.0, 400}
        assert serving.infer("m", ROW).json()["outputs"][0]["data"] == [1.0, 1.0]

    def test_a_revert_ends_it_at_once(self, serving: Serving, tmp_path: Path) -> None:
        old, new = versions(tmp_path)
        serving.deploy("m", old)
        serving.put("m", new, rollout=CANARY)
        until(lambda: "canary" in str(serving.view("m")["message"]), "it is tried")
        view = serving.put("m", old).json()
        assert (view["state"], view["pending_digest"]) == ("Live", None)
        answers = {serving.infer("m", ROW).json()["model_version"] for _ in range(30)}
        assert answers == {digest_of_file(old)[7:19]}

    def test_the_first_version_of_all_is_no_canary(self, serving: Serving, tmp_path: Path) -> None:
        serving.put("m", versions(tmp_path)[0], rollout=CANARY)
        assert serving.settle("m")["state"] == "Live"


class TestShadow:
    def test_nobody_gets_its_answers_until_it_takes_over(
        self, serving: Serving, tmp_path: Path
    ) -> None:
        old, new = versions(tmp_path)
        serving.deploy("m", old)
        with Load(serving) as load:
            serving.put("m", new, rollout=SHADOW)
            words = "otherwise than the old version"
            until(lambda: words in str(serving.view("m")["message"]), "it is watched")
            until(lambda: f" 0 {words}" not in str(serving.view("m")["message"]), "it differs")
            assert load.seen[2.0] == 0
            until(lambda: load.seen[2.0] > 0, "it has taken over")
        assert set(load.seen) == {1.0, 2.0}

    def test_one_that_cannot_read_the_requests_goes(self, serving: Serving, tmp_path: Path) -> None:
        old, _ = versions(tmp_path)
        other = onnx_models.constant(tmp_path / "other.onnx", 2, width=3)
        serving.deploy("m", old)
        with Load(serving) as load:
            serving.put("m", other, rollout=SHADOW)
            until(lambda: serving.view("m")["failed_digest"] is not None, "the verdict")
        assert set(load.seen) == {1.0}, "no client noticed"


class TestReplicas:
    def test_another_number_is_no_other_version(self, serving: Serving, tmp_path: Path) -> None:
        path = versions(tmp_path)[0]
        artifact = digest_of_file(path)
        order = {"install": "i", "uid": "u", "key": "k", "model_path": str(path)}
        for replicas in (1, 3):
            digest = f"sha256:{replicas:064}"
            body = order | {"digest": digest, "artifact": artifact}
            serving.admin.put("/deployments/m", json=body | {"options": {"replicas": replicas}})
            view = serving.settle("m")
            assert (view["digest"], view["replicas"]) == (digest, replicas)
            assert serving.infer("m", ROW).json()["model_version"] == artifact[7:19]
        page = serving.client.get("/metrics").text
        assert 'windlass_serving_loads_total{deployment="m",result="ok"} 1.0' in page

    def test_they_follow_the_load_and_come_down_by_themselves(
        self, serving: Serving, tmp_path: Path
    ) -> None:
        policy = {"min": 1, "max": 3, "metric": "requestsPerSecond", "target": 2, "down": 2}
        serving.deploy("m", versions(tmp_path)[0], autoscaling=policy)
        assert serving.view("m")["replicas"] == 1
        with Load(serving, clients=4):
            until(lambda: serving.view("m")["replicas"] == 3, "three replicas", 40)
        until(lambda: serving.view("m")["replicas"] == 1, "one again", 40)


class TestSleep:
    def test_a_model_that_nobody_asks_sleeps_and_a_request_wakes_it_up(
        self, serving: Serving, tmp_path: Path
    ) -> None:
        policy = {"min": 0, "max": 3, "metric": "requestsPerSecond", "target": 100, "down": 1}
        model = onnx_models.big(tmp_path / "m.onnx", 64, 1.0)
        before = resident(serving)
        serving.deploy("m", model, autoscaling=policy)
        until(lambda: serving.view("m")["replicas"] == 0, "it sleeps", 60)
        until(lambda: resident(serving) < before + 40_000, "the memory is free")
        assert serving.view("m")["state"] == "Live"
        assert serving.client.get("/v2/models/m/ready").status_code == 200
        width = (64 << 20) // 4 // 1024
        row = {"inputs": [tensor("x", "FP32", [1, width], [1.0] * width)]}
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(serving.infer, "m", row) for _ in range(8)]
            assert {answer.result(60).status_code for answer in answers} == {200}
        assert serving.view("m")["replicas"] == 1
        page = serving.client.get("/metrics").text
        assert 'windlass_serving_loads_total{deployment="m",result="ok"} 1.0' in page

    @pytest.mark.long
    def test_one_that_cannot_wake_up_says_why(self, serving: Serving, tmp_path: Path) -> None:
        policy = {"min": 0, "max": 1, "metric": "requestsPerSecond", "target": 100, "down": 1}
        path = versions(tmp_path)[0]
        serving.deploy("m", path, autoscaling=policy)
        until(lambda: serving.view("m")["replicas"] == 0, "it sleeps", 60)
        path.rename(tmp_path / "away")
        response = serving.infer("m", ROW)
        assert response.status_code == 503
        assert "is missing" in response.json()["error"]
        (tmp_path / "away").rename(path)
        assert serving.infer("m", ROW).status_code == 200

    def test_over_the_memory_budget_the_longest_unused_sleeps(self, tmp_path: Path) -> None:
        path = onnx_models.big(tmp_path / "m.onnx", 16, 1.0)
        width = (16 << 20) // 4 // 1024
        row = {"inputs": [tensor("x", "FP32", [1, width], [1.0] * width)]}
        with Serving(tmp_path / "state", 0, "--memory", str(40 << 20)) as serving:
            for name in "abc":
                serving.deploy(name, path)
                assert serving.infer(name, row).status_code == 200
            until(lambda: serving.view("a")["replicas"] == 0, "the longest unused sleeps")
            assert [serving.view(name)["replicas"] for name in "bc"] == [1, 1]
            assert serving.infer("a", row).status_code == 200
            until(lambda: serving.view("b")["replicas"] == 0, "the next one sleeps instead")


def resident(serving: Serving) -> int:
    """KiB of memory that the process holds."""
    status = Path(f"/proc/{serving.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)
