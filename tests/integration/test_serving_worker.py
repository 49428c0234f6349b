"""A worker that nobody leads any more: it serves on for its clients, and ends without them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from rig import onnx_models
from rig.serving import digest_of_file, until
from rig.serving_fleet import posted

IDLE = 2.0


class Worker:
    """One worker, started as a supervisor would, and then left alone."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as public:
            self.port = public.getsockname()[1]
            command = [sys.executable, "-m", "windlass.serving", "--state", str(folder)]
            command += ["--lead", str(folder / "nobody"), "--socket", str(public.fileno())]
            self.process = subprocess.Popen(
                [*command, "--idle", str(IDLE)], pass_fds=[public.fileno()]
            )
        self._directory = os.open(folder, os.O_PATH)
        uds = f"/proc/self/fd/{self._directory}/admin.sock"
        until(lambda: (folder / "serving.json").exists(), "the worker listens")
        self.admin = httpx.Client(
            transport=httpx.HTTPTransport(uds=uds), base_url="http://worker", timeout=30
        )

    def serve(self, model: Path) -> None:
        """Give it a Deployment, and let it take connections."""
        order = {"install": "i1", "uid": "u1", "key": "Deployment/default/m"}
        order |= {"digest": digest_of_file(model), "model_path": str(model)}
        body = json.dumps({**order, "options": {"threads": 1}})
        assert self.admin.put("/deployments/m", content=body).status_code == 202
        until(self._is_live, "the model is loaded")
        assert self.admin.post("/open").status_code == 204

    def _is_live(self) -> bool:
        (view,) = self.admin.get("/deployments").json()["deployments"]
        return bool(view["state"] == "Live")


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    folder = tmp_path / "1"
    folder.mkdir()
    found = Worker(folder)
    yield found
    found.admin.close()
    found.process.kill()
    found.process.wait(20)


def test_it_serves_while_it_is_asked_and_then_ends(worker: Worker, tmp_path: Path) -> None:
    worker.serve(onnx_models.constant(tmp_path / "m.onnx", 1))
    end = time.monotonic() + 2 * IDLE
    with closing(HTTPConnection("127.0.0.1", worker.port, timeout=60)) as client:
        while time.monotonic() < end:
            assert posted(client)[0] == 200
            time.sleep(0.1)
        assert worker.process.poll() is None
    assert worker.process.wait(60) == 0


def test_it_serves_while_it_is_led(worker: Worker, tmp_path: Path) -> None:
    worker.serve(onnx_models.constant(tmp_path / "m.onnx", 1))
    end = time.monotonic() + 2 * IDLE
    while time.monotonic() < end:
        assert worker.admin.get("/report").status_code == 200
        time.sleep(0.1)
    assert worker.process.poll() is None
