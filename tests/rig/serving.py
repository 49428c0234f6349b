"""A real serving process for tests: started, ordered, asked and stopped over its real sockets."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict

import httpx

START_BOUND = 110.0
POLL = 0.02


class Announcement(TypedDict):
    """What ``serving.json`` holds."""

    pid: int
    start_ticks: int
    boot_id: str
    host: str
    port: int
    version: str
    grpc_port: int | None


def until(condition: Callable[[], bool], what: str, bound: float = 60.0) -> None:
    """Look again until it holds; fail with a sentence after ``bound`` seconds."""
    deadline = time.monotonic() + bound
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {bound} s: {what}")
        time.sleep(POLL)


def digest_of_file(path: Path) -> str:
    """The sha256 of a file, as an order names it."""
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


class Serving:
    """One serving process. Use inside ``with``; leaving kills what is left of it."""

    def __init__(self, state: Path, port: int = 0, *more: str) -> None:
        self.state = state
        self._more = more
        self._process: subprocess.Popen[bytes] | None = None
        self._port = port
        state.mkdir(parents=True, exist_ok=True)
        self._directory = os.open(state, os.O_PATH | os.O_DIRECTORY)
        # Through the open folder, since pytest's paths are longer than a socket's may be.
        uds = f"/proc/self/fd/{self._directory}/admin.sock"
        self.admin = httpx.Client(
            transport=httpx.HTTPTransport(uds=uds), base_url="http://admin", timeout=30
        )
        self.client = httpx.Client(timeout=60)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.admin.close()
        self.client.close()
        self.kill()
        os.close(self._directory)

    def start(self) -> None:
        """Start the process and wait until it has announced itself."""
        command = [sys.executable, "-m", "windlass.serving", "--state", str(self.state)]
        with (self.state / "log").open("ab") as log:
            self._process = process = subprocess.Popen(
                [*command, "--port", str(self._port), *self._more],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        until(
            lambda: process.poll() is not None or self._announced(process.pid),
            "the serving process announces itself or ends",
            START_BOUND,
        )
        assert process.poll() is None, self.log()
        self.client.base_url = httpx.URL(f"http://127.0.0.1:{self.port}")

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def announcement(self) -> Announcement:
        """``serving.json``."""
        found: Announcement = json.loads((self.state / "serving.json").read_text())
        return found

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.announcement["port"]

    def log(self) -> str:
        """Everything that it has written."""
        return (self.state / "log").read_text()

    def kill(self) -> None:
        """End it without a warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def put(
        self,
        name: str,
        model: Path,
        *,
        uid: str = "u1",
        digest: str | None = None,
        **options: object,
    ) -> httpx.Response:
        """Order a version; its digest is the file's unless another is given."""
        order = {
            "install": "i1",
            "uid": uid,
            "key": f"Deployment/default/{name}",
            "digest": digest or digest_of_file(model),
            "model_path": str(model),
            "options": {"threads": 1, **options},
        }
        return self.admin.put(f"/deployments/{name}", json=order)

    def view(self, name: str) -> dict[str, object]:
        """What the admin API says of one Deployment."""
        views = self.admin.get("/deployments").json()["deployments"]
        found: dict[str, object] = next(view for view in views if view["name"] == name)
        return found

    def settle(self, name: str) -> dict[str, object]:
        """Wait until no change is under way, and say what came of it."""
        until(lambda: self.view(name)["state"] != "Progressing", f"{name} settles")
        return self.view(name)

    def deploy(self, name: str, model: Path, **options: object) -> None:
        """Order a version and wait until it is in force."""
        assert self.put(name, model, **options).status_code == 202  # type: ignore[arg-type]  # not uid
        view = self.settle(name)
        assert view["digest"] == digest_of_file(model), view

    def infer(
        self, name: str, document: object, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Send one request; a text or bytes go as they are, anything else as JSON."""
        content = document if isinstance(document, str | bytes) else json.dumps(document)
        return self.client.post(f"/v2/models/{name}/infer", content=content, headers=headers)

    def _announced(self, pid: int) -> bool:
        try:
            return self.announcement["pid"] == pid
        except (FileNotFoundError, json.JSONDecodeError):
            return False


def tensor(name: str, datatype: str, shape: list[int], data: object) -> dict[str, object]:
    """One input of a request."""
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def under_way(serving: Serving) -> float:
    """How many requests wait or run."""
    lines = serving.client.get("/metrics").text.splitlines()
    name = "windlass_serving_requests_in_flight "
    return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))
