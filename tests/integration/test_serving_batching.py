"""Requests that wait together run together, and nobody can tell by the answers."""

from __future__ import annotations

import contextlib
import ctypes
import json
import platform
import random
import socket
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest

from rig import onnx_models
from rig.serving import Serving, tensor, under_way, until
from windlass.serving.turns import TURN

LONG = 1_000_000.0
"""Rounds of ``stall``: half a second and more."""
WIDTH = 16


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("batching")
    with Serving(folder / "state") as process:
        for make in (onnx_models.stall, onnx_models.table, onnx_models.centred):
            process.deploy(make.__name__, make(folder / f"{make.__name__}.onnx"))
        process.deploy("few", folder / "stall.onnx", max_waiting=2)
        process.deploy("single", folder / "stall.onnx", max_batch=1)
        process.deploy("two", folder / "stall.onnx", replicas=2)
        process.deploy("dense", dense(folder))
        yield process


def dense(folder: Path) -> Path:
    """A model that really computes."""
    return onnx_models.perceptron(folder / "dense.onnx", (WIDTH, 32, 3))


def row(*values: float) -> dict[str, object]:
    """A request of the model ``stall``."""
    return {"inputs": [tensor("x", "FP32", [len(values) // 2, 2], list(values))]}


def message(model: str, document: object) -> bytes:
    """A whole request."""
    body = json.dumps(document).encode()
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def answers(client: socket.socket, count: int) -> list[tuple[int, dict[str, object]]]:
    """Status and document of the next answers on a connection."""
    found = []
    with client.makefile("rb") as stream:
        for _ in range(count):
            status = int(stream.readline().split()[1])
            length = 0
            while (line := stream.readline().strip().lower()) != b"":
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            found.append((status, json.loads(stream.read(length))))
    return found


def connection(serving: Serving) -> socket.socket:
    return socket.create_connection(("127.0.0.1", serving.port), timeout=60)


def runs(serving: Serving, model: str) -> dict[int, int]:
    """How many runs there were, by number of rows."""
    stats = serving.client.get(f"/v2/models/{model}/stats").json()["model_stats"][0]
    return {entry["batch_size"]: entry["compute_infer"]["count"] for entry in stats["batch_stats"]}


@contextlib.contextmanager
def held_up(serving: Serving, model: str, rounds: float = LONG) -> Iterator[Future[httpx.Response]]:
    """While the model works on something long, so that what comes must wait."""
    before = under_way(serving)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(serving.infer, model, row(rounds, 0))
        until(lambda: under_way(serving) == before + 1, "the long request runs")
        yield slow
        assert slow.result(60).json()["outputs"][0]["data"] == [rounds, 0.0]


def test_rows_that_wait_run_together_and_each_gets_its_own(serving: Serving) -> None:
    with held_up(serving, "stall") as slow, connection(serving) as client:
        client.sendall(b"".join(message("stall", row(n, -n)) for n in range(20)))
        until(lambda: under_way(serving) == 21, "all wait")
        assert not slow.done(), "too fast; make LONG longer"
        found = answers(client, 20)
    assert [document["outputs"][0]["data"] for _, document in found] == [  # type: ignore[index]  # a list
        [float(n), float(-n)] for n in range(20)
    ]
    assert max(runs(serving, "stall")) >= 10, "they ran one by one"


def test_batches_give_what_single_runs_give_for_random_sizes(
    serving: Serving, tmp_path: Path
) -> None:
    session = onnxruntime.InferenceSession(str(dense(tmp_path)), providers=["CPUExecutionProvider"])
    chance = np.random.default_rng(3)
    arrays = [chance.normal(size=(n, WIDTH)).astype(np.float32) for n in chance.integers(1, 9, 60)]
    messages = []
    for array in arrays:
        sent = tensor("x", "FP32", list(array.shape), array.tolist())
        messages.append(message("dense", {"inputs": [sent]}))
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connection(serving)) for _ in range(4)]
        for at, client in enumerate(clients):
            client.sendall(b"".join(messages[at::4]))
        for at, client in enumerate(clients):
            part = arrays[at::4]
            for array, (status, document) in zip(part, answers(client, len(part)), strict=True):
                (expected,) = session.run(None, {"x": array})
                assert status == 200
                output = document["outputs"][0]  # type: ignore[index]  # a list
                assert output["shape"] == [len(array), 3]
                got = np.array(output["data"], np.float32).reshape(-1, 3)
                assert np.allclose(got, expected, rtol=1e-4, atol=1e-5)
    assert max(runs(serving, "dense")) > 8, "nothing ran together"


def test_a_row_that_spoils_the_batch_fails_alone(serving: Serving) -> None:
    indices = [0, 1, 99, 2, -77, 3] * 5
    with connection(serving) as client:
        client.sendall(
            b"".join(
                message("table", {"inputs": [tensor("i", "INT64", [1], [n])]}) for n in indices
            )
        )
        found = answers(client, len(indices))
    for index, (status, document) in zip(indices, found, strict=True):
        if index in range(4):
            assert document["outputs"][0]["data"] == [2.0 * index, 2.0 * index + 1]  # type: ignore[index]  # a list
        else:
            assert status == 400
            assert "it cannot run on this input" in str(document["error"])


def test_a_model_whose_rows_depend_on_each_other_is_never_batched(serving: Serving) -> None:
    with connection(serving) as client:
        client.sendall(b"".join(message("centred", row(0, n, 2, n)) for n in range(20)))
        found = answers(client, 20)
    for _, document in found:
        assert document["outputs"][0]["data"] == [-1.0, 0.0, 1.0, 0.0]  # type: ignore[index]  # a list
    assert set(runs(serving, "centred")) == {1}
    assert serving.client.get("/v2/models/centred/config").json()["max_batch_size"] == 0


def test_batching_can_be_turned_off(serving: Serving) -> None:
    with connection(serving) as client:
        client.sendall(b"".join(message("single", row(n, n)) for n in range(10)))
        assert [status for status, _ in answers(client, 10)] == [200] * 10
    assert set(runs(serving, "single")) == {1}


def test_clients_that_hang_up_in_the_queue_cost_the_others_nothing(serving: Serving) -> None:
    chance = random.Random(5)
    with held_up(serving, "stall"), contextlib.ExitStack() as stack:
        clients = {n: stack.enter_context(connection(serving)) for n in range(40)}
        for n, client in clients.items():
            client.sendall(message("stall", row(n, n)))
        until(lambda: under_way(serving) == 41, "all wait")
        gone = chance.sample(sorted(clients), 20)
        for n in gone:
            # A reset, so that writing to it fails at once.
            linger = b"\1\0\0\0\0\0\0\0"
            clients[n].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            clients[n].close()
        for n in set(clients) - set(gone):
            ((status, document),) = answers(clients[n], 1)
            assert status == 200
            assert document["outputs"][0]["data"] == [float(n)] * 2  # type: ignore[index]  # a list
    until(lambda: under_way(serving) == 0, "nothing is left")


def test_who_closes_the_connection_costs_no_computing_and_who_only_writes_no_more_is_answered(
    serving: Serving,
) -> None:
    def left() -> int:
        text = serving.client.get("/metrics").text
        ends = (line.rpartition(" ") for line in text.splitlines() if 'code="499"' in line)
        return sum(int(float(count)) for series, _, count in ends if 'deployment="stall"' in series)

    before = left()
    with held_up(serving, "stall", 3 * LONG) as slow, contextlib.ExitStack() as stack:
        clients = {n: stack.enter_context(connection(serving)) for n in range(8)}
        for n, client in clients.items():
            client.sendall(message("stall", row(n, n)))
        until(lambda: under_way(serving) == 9, "all wait")
        for n in range(4):
            clients[n].close()
            clients[n + 4].shutdown(socket.SHUT_WR)
        slow.result(60)
        for n in range(4, 8):
            *early, ((status, document)) = replies(clients[n])
            assert early, "it took long enough for an interim answer"
            assert {code for code, _ in early} == {102}
            assert status == 200
            assert document["outputs"][0]["data"] == [float(n)] * 2  # type: ignore[index]  # a list
    until(lambda: under_way(serving) == 0, "nothing is left")
    assert left() == before + 4


def replies(client: socket.socket) -> list[tuple[int, dict[str, object]]]:
    """Interim answers and the last one, up to the end of the connection."""
    with client.makefile("rb") as stream:
        text = stream.read()
    found: list[tuple[int, dict[str, object]]] = []
    while text:
        head, _, text = text.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        found.append((status, {} if status == 102 else json.loads(text)))
        text = text if status == 102 else b""
    return found


def test_a_full_queue_is_a_429_that_says_when_to_come_again(serving: Serving) -> None:
    with held_up(serving, "few"), connection(serving) as client:
        client.sendall(b"".join(message("few", row(n, n)) for n in range(5)))
        statuses = [status for status, _ in answers(client, 5)]
        response = None
    assert statuses == [200, 200, 429, 429, 429]
    with held_up(serving, "few"), connection(serving) as client:
        client.sendall(b"".join(message("few", row(n, n)) for n in range(2)))
        until(lambda: under_way(serving) == 3, "the queue is full")
        response = serving.infer("few", row(1, 1))
        answers(client, 2)
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) >= 1
    assert "wait for this model already" in response.json()["error"]


def test_a_request_that_waits_past_its_deadline_is_a_504(serving: Serving) -> None:
    with held_up(serving, "stall", 4 * LONG):
        response = serving.infer("stall", row(1, 1) | {"parameters": {"timeout": 1000}})
        assert response.status_code == 504
        assert "longer than its deadline" in response.json()["error"]
    assert serving.infer("stall", row(1, 1) | {"parameters": {"timeout": 10**9}}).is_success


def test_replicas_run_at_the_same_time(serving: Serving) -> None:
    with held_up(serving, "two", 4 * LONG) as slow:
        assert serving.infer("two", row(1, 1)).status_code == 200
        assert not slow.done(), "too fast; make LONG longer"


def test_pipelined_answers_keep_their_order_though_a_later_one_is_ready_first(
    serving: Serving,
) -> None:
    with connection(serving) as client:
        health = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
        client.sendall(message("stall", row(LONG / 4, 1)) + message("dense", {}) + health)
        found = answers(client, 3)
    assert [status for status, _ in found] == [200, 400, 200]
    assert found[2][1] == {"live": True}


def test_a_run_that_never_ends_costs_its_own_request_and_no_other(
    serving: Serving, tmp_path: Path
) -> None:
    model = onnx_models.stall(tmp_path / "hangs.onnx")
    serving.deploy("hangs", model, max_run=0.5, max_batch=1)
    with ThreadPoolExecutor(1) as pool:
        hung = pool.submit(serving.infer, "hangs", row(3e7, 0))
        until(lambda: under_way(serving) == 1, "it hangs")
        assert serving.infer("hangs", row(1, 1)).status_code == 200
        response = hung.result(60)
    assert response.status_code == 504
    assert "longer than maxRun" in response.json()["error"]
    assert serving.view("hangs")["hung"] == 1


def test_every_thread_takes_short_turns(serving: Serving) -> None:
    """Those that were there, and those that a heavy model has needed since."""
    with held_up(serving, "stall"):
        pass
    turns = {turn(int(each.name)) for each in Path(f"/proc/{serving.process.pid}/task").iterdir()}
    major, minor = map(int, platform.release().split(".")[:2])
    assert turns == {TURN if (major, minor) >= (6, 12) else 0}


def turn(thread: int) -> int:
    """Nanoseconds of its turns on a processor, as the system has been asked."""
    attributes = ctypes.create_string_buffer(48)
    number = {"x86_64": 315, "aarch64": 275}[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, thread, attributes, 48, 0) == 0
    return int.from_bytes(attributes.raw[24:32], "little")


def test_a_light_model_answers_while_a_heavy_one_works(serving: Serving) -> None:
    sent = {"inputs": [tensor("x", "FP32", [1, WIDTH], [0.5] * WIDTH)]}
    with held_up(serving, "stall") as slow:
        for _ in range(100):
            assert serving.infer("dense", sent).status_code == 200
        assert not slow.done(), "too fast; make LONG longer"
