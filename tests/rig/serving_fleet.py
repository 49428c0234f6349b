"""Several serving processes as one, for tests: counted, asked, loaded, killed."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import httpx

from rig import onnx_models
from rig.serving import Serving, tensor, until

ROW = {"inputs": [tensor("x", "FP32", [1, 2], [0, 0])]}
BODY = json.dumps(ROW).encode()


class Fleet(Serving):
    """A supervisor with its workers. Leaving kills all of them."""

    def __init__(self, state: Path, port: int = 0, *more: str) -> None:
        super().__init__(state, port, *more)
        # A connection that is kept and not used would hold up a process that retires.
        self.client.close()
        self.client = httpx.Client(timeout=60, limits=httpx.Limits(max_keepalive_connections=0))

    def workers(self) -> dict[int, Path]:
        """Folder by process id of each worker that takes part."""
        found = {}
        for folder in (self.state / "workers").glob("*"):
            with suppress(OSError, ValueError):
                found[int(json.loads((folder / "serving.json").read_text())["pid"])] = folder
        return found

    def processes(self) -> float:
        """How many serve, by their own page."""
        return self.series("windlass_serving_processes")

    def series(self, name: str) -> float:
        """One number of the page."""
        lines = self.client.get("/metrics").text.splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith(name))

    def kill(self) -> None:
        super().kill()
        for pid in self.workers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Load:
    """Clients that ask all the time, each answer checked; a new connection for each request."""

    def __init__(self, fleet: Fleet, clients: int = 4, *, keep: bool = False) -> None:
        self._port = fleet.port
        self._keep = keep
        self._stop = threading.Event()
        self.values: Counter[tuple[float, float]] = Counter()
        self.faults: list[str] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Load:
        for each in self._threads:
            each.start()
        until(lambda: sum(self.values.values()) > 10 or bool(self.faults), "the load is on")
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for each in self._threads:
            each.join(60)

    @property
    def answers(self) -> int:
        return sum(self.values.values())

    def _ask(self) -> None:
        client = HTTPConnection("127.0.0.1", self._port, timeout=60)
        while not self._stop.is_set():
            try:
                status, body = posted(client)
                assert status == 200, body
                one, other = (tuple(o["data"]) for o in json.loads(body)["outputs"])
            except (OSError, HTTPException, AssertionError) as error:
                self.faults.append(f"{error!r}")
                client.close()
                continue
            if one != other:
                self.faults.append(f"mixed: {body!r}")
            self.values[one] += 1
            if not self._keep:
                client.close()
        client.close()


def posted(client: HTTPConnection, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """One request; the connection is made if there is none."""
    client.request("POST", "/v2/models/m/infer", BODY, dict(headers or {}))
    answer = client.getresponse()
    return answer.status, answer.read()


def once(fleet: Serving, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """One request on a connection of its own."""
    with closing(HTTPConnection("127.0.0.1", fleet.port, timeout=60)) as client:
        return posted(client, headers)


def one(fleet: Fleet) -> Path:
    """A model that answers 1."""
    return onnx_models.constant(fleet.state.parent / "1.onnx", 1)


def answered(fleet: Fleet) -> float:
    """Requests that were answered, by the page of all processes."""
    return fleet.series('windlass_serving_requests_total{code="200",deployment="m"}')


def answered_by(folder: Path) -> int:
    """The same of one worker."""
    transport = httpx.HTTPTransport(uds=_short(folder / "admin.sock"))
    with httpx.Client(transport=transport, base_url="http://worker") as client:
        numbers = client.get("/report").json()["numbers"]
    return int(numbers["deployments"]["m"]["requests"]["by_code"].get("200", 0))


def _short(path: Path) -> str:
    """The socket by a name that fits into an address."""
    return f"/proc/self/fd/{os.open(path.parent, os.O_PATH)}/{path.name}"
