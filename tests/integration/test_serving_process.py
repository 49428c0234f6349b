"""The serving process starts, says where it is, stops without a loss, and never runs twice."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from rig import onnx_models
from rig.serving import Serving, tensor, under_way, until

ONE_ROW = {"inputs": [tensor("x", "FP32", [1, 2], [0, 0])]}


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    with Serving(tmp_path / "state") as process:
        yield process


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One for all who only look."""
    with Serving(tmp_path_factory.mktemp("standing") / "state") as process:
        yield process


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def attempt(state: Path, port: int, *more: str) -> subprocess.CompletedProcess[str]:
    """Start a process that is expected to end by itself."""
    command = [sys.executable, "-m", "windlass.serving", "--state", str(state), f"--port={port}"]
    return subprocess.run(
        [*command, *more], capture_output=True, text=True, timeout=110, check=False
    )


def refuses(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


class TestStart:
    def test_it_announces_who_it_is_and_where(self, standing: Serving) -> None:
        said = standing.announcement
        fields = Path(f"/proc/{said['pid']}/stat").read_text().rpartition(")")[2].split()
        assert said["pid"] == standing.process.pid
        assert said["start_ticks"] == int(fields[19])
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert (said["boot_id"], said["host"]) == (boot, "127.0.0.1")
        health = standing.admin.get("/healthz").json()
        assert health == {"status": "ok", "pid": said["pid"], "version": said["version"]}

    def test_only_its_user_can_open_the_admin_socket(self, standing: Serving) -> None:
        mode = (standing.state / "admin.sock").stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600

    def test_a_state_folder_with_a_very_long_path_works(self, tmp_path: Path) -> None:
        with Serving(tmp_path / ("long" * 30) / ("longer" * 20)) as serving:
            assert serving.admin.get("/healthz").status_code == 200

    def test_a_second_process_for_the_same_folder_ends_with_75(self, standing: Serving) -> None:
        before = standing.announcement
        second = attempt(standing.state, 0)
        assert second.returncode == 75
        assert "another serving process holds" in second.stderr
        assert standing.announcement == before
        assert not (standing.state / "error.json").exists()
        assert standing.admin.get("/healthz").status_code == 200

    def test_a_port_in_use_ends_it_with_98_and_says_what_to_do(self, tmp_path: Path) -> None:
        state = tmp_path / "state"
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = int(taken.getsockname()[1])
            done = attempt(state, port)
        assert done.returncode == 98
        error = json.loads((state / "error.json").read_text())
        assert error["reason"] == "PortInUse"
        for words in (f"127.0.0.1:{port}", "params.port of the Target", "WINDLASS_SERVING_PORT"):
            assert words in error["message"]
        assert not (state / "serving.json").exists()
        assert "Traceback" not in done.stderr
        with Serving(state, port) as serving:
            assert serving.port == port
            assert not (state / "error.json").exists()

    def test_a_state_folder_that_cannot_be_made_ends_it_with_73(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        done = attempt(tmp_path / "file" / "state", 0)
        assert done.returncode == 73
        assert "cannot write in" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("port", [-1, 65536])
    def test_a_port_that_is_none_is_refused(self, tmp_path: Path, port: int) -> None:
        done = attempt(tmp_path, port)
        assert done.returncode == 2
        assert "is no port; use 0 to 65535" in done.stderr

    def test_an_address_of_another_machine_is_refused_with_a_sentence(self, tmp_path: Path) -> None:
        done = attempt(tmp_path, 0, "--host", "192.0.2.1")
        assert done.returncode == 1
        error = json.loads((tmp_path / "error.json").read_text())
        assert "cannot listen on 192.0.2.1:0" in error["message"]
        assert "Traceback" not in done.stderr


class TestStop:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_stop_answers_the_requests_under_way_and_ends_with_0(
        self, serving: Serving, tmp_path: Path, number: signal.Signals
    ) -> None:
        serving.deploy("m", onnx_models.loop(tmp_path / "m.onnx"))
        port = serving.port
        body = {"inputs": [tensor("rounds", "INT64", [1], [300_000])]}
        with ThreadPoolExecutor() as pool:
            slow = [pool.submit(serving.infer, "m", body) for _ in range(6)]
            until(lambda: under_way(serving) == 6, "six requests run or wait")
            serving.process.send_signal(number)
            until(lambda: refuses(port), "nothing new is taken")
            assert not all(answer.done() for answer in slow), "too fast; make the model slower"
            assert [answer.result(60).status_code for answer in slow] == [200] * 6
        assert serving.process.wait(10) == 0
        assert not (serving.state / "serving.json").exists()
        assert not (serving.state / "admin.sock").exists()

    def test_the_admin_socket_can_stop_it(self, serving: Serving) -> None:
        assert serving.admin.post("/stop").status_code == 202
        assert serving.process.wait(20) == 0

    def test_with_nothing_deployed_and_nobody_who_asks_it_ends(self, tmp_path: Path) -> None:
        with Serving(tmp_path / "state", 0, "--idle", "1") as serving:
            assert serving.process.wait(60) == 0
            assert not (serving.state / "serving.json").exists()
            assert '"event": "nobody asks"' in serving.log()

    @pytest.mark.parametrize("processes", ["1", "2"])
    def test_what_is_deployed_or_asked_for_keeps_it(self, tmp_path: Path, processes: str) -> None:
        more = ("--idle", "1.5", "--processes", processes)
        with Serving(tmp_path / "state", 0, *more) as serving:
            for _ in range(8):
                time.sleep(0.3)
                assert serving.admin.get("/deployments").status_code == 200
            serving.deploy("m", onnx_models.constant(tmp_path / "m.onnx", 1))
            time.sleep(2.5)
            assert serving.process.poll() is None
            assert serving.infer("m", ONE_ROW).status_code == 200
            serving.admin.delete("/deployments/m", params={"uid": "u1"})
            assert serving.process.wait(60) == 0
            assert not list((serving.state / "workers").glob("*/serving.json"))

    def test_a_stop_does_not_wait_for_a_load(self, serving: Serving, tmp_path: Path) -> None:
        serving.put("m", onnx_models.big(tmp_path / "m.onnx", 120), digest="sha256:" + "0" * 64)
        serving.process.terminate()
        assert serving.process.wait(20) == 0

    def test_a_terminal_that_goes_away_does_not_end_it(self, standing: Serving) -> None:
        os.kill(standing.process.pid, signal.SIGHUP)
        assert standing.admin.get("/healthz").status_code == 200
        assert standing.process.poll() is None

    def test_after_a_kill_it_starts_again_on_the_same_port_and_takes_orders(
        self, tmp_path: Path, free_port: int
    ) -> None:
        model = onnx_models.constant(tmp_path / "m.onnx", 1)
        with Serving(tmp_path / "state", free_port) as serving:
            serving.deploy("m", model)
            serving.kill()
            assert (serving.state / "serving.json").exists()
            with pytest.raises(httpx.TransportError):
                serving.infer("m", ONE_ROW)
            serving.start()
            assert serving.port == free_port
            assert serving.infer("m", ONE_ROW).status_code == 404
            serving.deploy("m", model)
            assert serving.infer("m", ONE_ROW).status_code == 200

    def test_the_access_log_tells_of_requests_and_their_trace_and_of_no_key(
        self, tmp_path: Path
    ) -> None:
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        with Serving(tmp_path / "state", 0, "--access-log", "1") as serving:
            serving.deploy("m", onnx_models.constant(tmp_path / "m.onnx", 1))
            serving.infer("m", ONE_ROW, {"traceparent": trace, "authorization": "Bearer secret"})
            until(lambda: '"event": "request"' in serving.log(), "the line")
            (line,) = [each for each in serving.log().splitlines() if '"request"' in each]
        entry = json.loads(line)
        assert (entry["model"], entry["status"], entry["traceparent"]) == ("m", 200, trace)
        assert "secret" not in line

    def test_the_log_is_one_json_object_a_line(self, serving: Serving, tmp_path: Path) -> None:
        serving.deploy("m", onnx_models.addition(tmp_path / "m.onnx"))
        inputs = [tensor(name, "FP32", [len(name)], [0] * len(name)) for name in ("left", "right")]
        assert serving.infer("m", {"inputs": inputs}).status_code == 400
        (tmp_path / "bad.onnx").write_bytes(b"junk")
        serving.put("bad", tmp_path / "bad.onnx")
        serving.settle("bad")
        serving.process.terminate()
        serving.process.wait(20)
        events = [json.loads(line)["event"] for line in serving.log().splitlines()]
        assert events == ["serving", "load", "load", "stopping", "stopped"]
