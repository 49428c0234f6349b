"""Whatever strangers send to the serving process, it lives, and the neighbours get answers."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from rig import onnx_models
from rig.serving import Serving, tensor, under_way, until

FEW = 2_000
ATTACKERS = 8
MANY = int(os.environ.get("FUZZ_EXAMPLES", "100000"))
ROW = {"inputs": [tensor("x", "FP32", [1, 2], [1, 2])]}
PATHS = (
    "/v2/models/m/infer",
    "/v2/models/m/versions/1/infer",
    "/v1/models/m:predict",
    "/invocations",
    "/v2/repository/index",
    "/v2/models/m",
    "/metrics",
)
SAGEMAKER = "application/vnd.sagemaker-triton.binary+json"
NASTY: tuple[object, ...] = (
    *(0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**400, 1.5, 1e308),
    *(None, True, "", "x", [], {}, [[]], "NaN", "\ud800"),
)

Bytes = Callable[[random.Random], bytes]


def document(chance: random.Random) -> bytes:
    """A request with a few members bent."""
    whole: dict[str, object] = json.loads(json.dumps(ROW))
    entry = whole["inputs"][0]  # type: ignore[index]  # a list
    for _ in range(chance.randrange(4)):
        place = chance.choice([whole, entry])
        name = chance.choice([*place, "outputs", "parameters", "id"])
        place[name] = chance.choice(NASTY) if chance.random() < 0.8 else [chance.choice(NASTY)] * 3
    if chance.random() < 0.3:
        entry["shape"] = [chance.choice([0, 1, 2, 1000, 2**31 - 1, 2**40, -1]) for _ in range(2)]
    return json.dumps(whole).encode()


def binary(chance: random.Random) -> tuple[bytes, str]:
    """A request of the binary extension whose sizes may lie; its body and its header's value."""
    lie = chance.choice([8, 8, 8, 0, 7, 9, -1, 2**31, 2**63, 10**30])
    entry = tensor("x", "FP32", [1, 2], None) | {"parameters": {"binary_data_size": lie}}
    del entry["data"]
    head = json.dumps({"inputs": [entry]}).encode()
    length = chance.choice([len(head), len(head), len(head) - 1, 0, -1, 2**31, 2**64, "", "0x9"])
    return head + struct.pack("<2f", 1, 2)[: chance.choice([8, 8, 7, 0])], str(length)


def request(chance: random.Random) -> bytes:
    """A request, more or less."""
    body, more = document(chance), ""
    if chance.random() < 0.25:
        body, length = binary(chance)
        more = f"Inference-Header-Content-Length: {length}\r\n"
    if chance.random() < 0.1:
        body = chance.randbytes(chance.randrange(200))
    if chance.random() < 0.1:
        more += chance.choice(
            [
                "Content-Encoding: gzip\r\n",
                "Transfer-Encoding: chunked\r\n",
                "Expect: 100-continue\r\n",
                "Content-Type: text/csv\r\n",
                f"Content-Type: {SAGEMAKER};json-header-size=-1\r\n",
                "Upgrade: h2c\r\nConnection: Upgrade\r\n",
                "Connection: close\r\n",
                "Content-Length: 3\r\n",
                "X: " + "x" * 70_000 + "\r\n",
            ]
        )
    size = len(body) if chance.random() < 0.9 else chance.choice([0, 1, 5, 10**6, 10**20, -5])
    path, method = chance.choice(PATHS), chance.choice(["POST", "POST", "POST", "GET", "HEAD", "X"])
    return (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n{more}\r\n".encode()
        + body
    )


def mangled(chance: random.Random) -> bytes:
    """A request with bytes changed, cut out, doubled or cut off."""
    data = bytearray(request(chance))
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(data))
        way = chance.randrange(4)
        if way == 0:
            data[at] = chance.randrange(256)
        elif way == 1:
            del data[at : at + chance.randrange(1, 20)]
        elif way == 2:
            data[at:at] = data[at : at + 30]
        else:
            del data[at:]
        if not data:
            break
    return bytes(data)


def attack(port: int, seed: int, count: int) -> None:
    """Send so many; what comes back is read and thrown away, or not even read."""
    chance = random.Random(seed)
    for _ in range(count):
        pieces = [chance.choice((request, mangled))(chance) for _ in range(chance.randrange(1, 4))]
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as client:
            client.settimeout(0.02 if chance.random() < 0.9 else 0.001)
            client.sendall(b"".join(pieces))
            if chance.random() < 0.8:
                client.recv(65536)


def attacks(port: int, seed: int, count: int) -> None:
    """The same from several clients at once: each waits most of the time."""
    with ThreadPoolExecutor(ATTACKERS) as pool:
        shares = [len(range(each, count, ATTACKERS)) for each in range(ATTACKERS)]
        sent = [
            pool.submit(attack, port, seed * ATTACKERS + each, share)
            for each, share in enumerate(shares)
        ]
        for each in sent:
            each.result()


class Neighbour:
    """A client that asks rightly all the time."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/v2/models/m/infer"
        self._stop = threading.Event()
        self.answers = 0
        self.wrong: list[str] = []

    def __enter__(self) -> Neighbour:
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _ask(self) -> None:
        with httpx.Client(timeout=60) as client:
            while not self._stop.is_set():
                n = float(self.answers)
                sent = {"inputs": [tensor("x", "FP32", [1, 2], [n, -n])]}
                response = client.post(self._url, json=sent)
                right = response.is_success and response.json()["outputs"][0]["data"] == [n, -n]
                if not right:
                    self.wrong.append(response.text)
                self.answers += 1


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    with Serving(tmp_path / "state") as process:
        process.deploy("m", onnx_models.identity(tmp_path / "m.onnx"))
        yield process


def resident(serving: Serving) -> int:
    """KiB of memory that the process holds."""
    status = Path(f"/proc/{serving.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)


def survives(serving: Serving, count: int) -> None:
    """Attack in two halves: the second must not cost memory."""
    with Neighbour(serving.port) as neighbour:
        attacks(serving.port, 1, count // 2)
        once = resident(serving)
        attacks(serving.port, 2, count - count // 2)
    assert neighbour.wrong == []
    assert neighbour.answers > 0
    until(lambda: under_way(serving) == 0, "nothing is left under way")
    assert serving.process.poll() is None
    assert resident(serving) < once * 1.2 + 20_000
    events = [json.loads(line) for line in serving.log().splitlines()]
    assert [event for event in events if event["level"] in ("error", "critical")] == []
    assert serving.infer("m", ROW).status_code == 200


def test_a_few_thousand_malformed_requests_harm_nobody(serving: Serving) -> None:
    survives(serving, FEW)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_hundred_thousand_malformed_requests_harm_nobody(serving: Serving) -> None:
    survives(serving, MANY)
