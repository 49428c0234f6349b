"""Windlass beside other model servers: same core, same model, same payload, answers checked.

``make bench-serving`` runs it: each peer in a venv of its own below .bench/, rounds in alternating
order, medians. The server has core 0 and wrk core 1. ``--only NAME,NAME``, ``--rounds N``,
``--seconds N`` and ``--models small,deep,conv`` choose less. Writes the table into docs/serving.md
and the plot to docs/serving-speed.svg with ``--write``.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime

from bench.serving.contenders import CONTENDERS, HERE, ROOT, Contender, environment
from bench.serving.pages import write_pages
from rig import onnx_models
from rig.serving import Serving

CONNECTIONS = (1, 8, 64)
START = 60.0
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0}


@dataclass(frozen=True)
class Cell:
    """One measurement."""

    rate: float
    """Requests a second."""
    p50: float
    """Milliseconds."""
    p99: float
    bad: int
    """Answers that were no 200, and broken connections."""
    cpu: float
    """Microseconds of processor time of the server for each request: not moved by other work on
    the machine as rates are."""


class Running(NamedTuple):
    """A server that runs."""

    process: int
    port: int


@dataclass(frozen=True)
class Payload:
    """A request and what must come back."""

    model: Path
    row: np.ndarray[tuple[int, ...], np.dtype[np.float32]]

    @property
    def json(self) -> bytes:
        data = [round(float(value), 4) for value in self.row.ravel()]
        entry = {"name": "x", "shape": list(self.row.shape), "datatype": "FP32", "data": data}
        return json.dumps({"inputs": [entry]}).encode()

    @property
    def binary(self) -> tuple[bytes, int]:
        """The body, and the length of the JSON at its start."""
        size = {"binary_data_size": self.row.nbytes}
        entry = {"name": "x", "shape": list(self.row.shape), "datatype": "FP32"}
        wish = {"binary_data_output": True}
        head = json.dumps({"inputs": [{**entry, "parameters": size}], "parameters": wish}).encode()
        return head + self.row.tobytes(), len(head)

    def expected(self) -> list[float]:
        session = _session(self.model)
        (result,) = session.run(None, {"x": np.round(self.row, 4)})
        found: list[float] = result.ravel().tolist()
        return found


def _session(model: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def raw_limit(payload: Payload, rows: int, seconds: float) -> float:
    """Rows a second of ``session.run`` in a tight loop on the server's core."""
    code = (
        "import sys,time,numpy as np;sys.path.insert(0,sys.argv[1]);"
        "from bench.serving.bench_serving import _session;from pathlib import Path;"
        "s=_session(Path(sys.argv[2]));n=int(sys.argv[3]);shape=eval(sys.argv[5]);"
        "x=np.random.rand(n,*shape).astype(np.float32);s.run(None,{'x':x});"
        "t=time.perf_counter();c=0\n"
        "while time.perf_counter()-t<float(sys.argv[4]): s.run(None,{'x':x});c+=n\n"
        "print(c/(time.perf_counter()-t))"
    )
    shape = str(tuple(payload.row.shape[1:]))
    arguments = [str(HERE.parents[1]), str(payload.model), str(rows), str(seconds), shape]
    command = ["taskset", "-c", "0", sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return float(done.stdout)


def venv(contender: Contender) -> Path:
    """Its Python; made on the first use."""
    if not contender.needs:
        return Path(sys.executable)
    folder = Path(os.environ.get("BENCH_VENVS", ROOT / ".bench")) / contender.venv
    python = folder / "bin/python"
    if not (folder / "done").exists():
        print(f"installing {contender.venv}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *contender.needs], check=True)
        (folder / "done").touch()
    return python


@contextmanager
def running(contender: Contender, payload: Payload) -> Iterator[Running]:
    """The server on core 0."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if contender.command[0] == "windlass":
            most = int(contender.command[1]) if len(contender.command) > 1 else 32
            with Serving(work / "state") as serving:
                os.sched_setaffinity(serving.process.pid, {0})
                for thread in Path(f"/proc/{serving.process.pid}/task").iterdir():
                    os.sched_setaffinity(int(thread.name), {0})
                serving.deploy("m", payload.model, max_batch=most)
                yield Running(serving.process.pid, serving.port)
            return
        with _peer(contender, payload, work) as place:
            yield place


@contextmanager
def _peer(contender: Contender, payload: Payload, work: Path) -> Iterator[Running]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    python = venv(contender)
    for path, text in contender.files.items():
        file = work / path
        file.parent.mkdir(parents=True, exist_ok=True)
        text = (HERE / "peers" / text[1:]).read_text() if text.startswith("@") else text
        file.write_text(text.replace('"http_port": 0', f'"http_port": {port}'))
    site = next((python.parents[1] / "lib").glob("python3*")) / "site-packages"
    names = {"python": python, "bin": python.parent, "port": port, "work": work, "site": site}
    command = [part.format(**names) for part in contender.command]
    variables = environment(contender, payload.model) | {"PORT": str(port)}
    with (work / "log").open("wb") as log:
        process = subprocess.Popen(
            ["taskset", "-c", "0", *command],
            env=variables,
            cwd=work,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield Running(process.pid, port)
    except Exception:
        print((work / "log").read_text()[-3000:])
        raise
    finally:
        for number in (signal.SIGINT, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(8)
            except (subprocess.TimeoutExpired, ProcessLookupError):
                continue
        process.wait(10)


def post(port: int, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        client.request("POST", path, body, headers)
        answer = client.getresponse()
        return answer.status, answer.read()
    finally:
        client.close()


def wait_for_right_answer(contender: Contender, payload: Payload, port: int) -> None:
    """The server is up when it answers; the answer must be the model's."""
    deadline = time.monotonic() + START
    body = b""
    kind = {"Content-Type": "application/json"}
    while True:
        try:
            status, body = post(port, contender.path, payload.json, kind)
            if status == 200:
                break
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise TimeoutError(f"{contender.name} does not answer")
        time.sleep(0.1)
    got = json.loads(body)["outputs"][0]["data"]
    assert np.allclose(np.ravel(got), payload.expected(), atol=1e-3), (contender.name, got)


def wrk(
    contender: Contender, payload: Payload, place: Running, connections: int, seconds: float
) -> Cell:
    """Load it, closed loop, from core 1."""
    server, port = place.process, place.port
    body, headers = payload.json, {"Content-Type": "application/json"}
    if contender.binary:
        body, length = payload.binary
        headers = {
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(length),
        }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "body").write_bytes(body)
        lines = [f'local f = io.open("{folder}/body", "rb"); wrk.body = f:read("*all"); f:close()']
        lines += ['wrk.method = "POST"']
        lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items()]
        script = Path(folder) / "post.lua"
        script.write_text("\n".join(lines))
        url = f"http://127.0.0.1:{port}{contender.path}"
        command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s"]
        command += ["--timeout", "30s", "--latency", "-s", str(script), url]
        before = cpu_seconds(server)
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    times = {
        share: float(value) * _UNITS[unit]
        for share, value, unit in re.findall(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.M)
    }
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", text)[0])
    bad = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", text)))
    for part in re.findall(r"Socket errors: (.*)", text):
        bad += sum(map(int, re.findall(r"\d+", part)))
    answered = int(re.findall(r"(\d+) requests in", text)[0])
    spent = (cpu_seconds(server) - before) / max(answered, 1) * 1e6
    return Cell(rate, times["50"], times["99"], bad, spent)


def cpu_seconds(root: int) -> float:
    """Processor time of a process and everything below it."""
    parents: dict[int, list[int]] = {}
    spent: dict[int, float] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(folder.name))
            spent[int(folder.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    total, pending = 0.0, [root]
    while pending:
        pid = pending.pop()
        total += spent.get(pid, 0.0)
        pending += parents.get(pid, [])
    return total


def measure(
    contenders: Sequence[Contender], payload: Payload, rounds: int, seconds: float
) -> dict[str, dict[int, list[Cell]]]:
    """Every contender at every number of connections, in alternating order."""
    found: dict[str, dict[int, list[Cell]]] = {each.name: {} for each in contenders}
    for turn in range(rounds):
        for contender in contenders if turn % 2 == 0 else contenders[::-1]:
            with running(contender, payload) as place:
                wait_for_right_answer(contender, payload, place.port)
                wrk(contender, payload, place, 8, 1)
                for connections in CONNECTIONS:
                    cell = wrk(contender, payload, place, connections, seconds)
                    found[contender.name].setdefault(connections, []).append(cell)
                    print(f"[{turn}] {contender.name:22} {connections:3} {cell}", flush=True)
    return found


def median(cells: Sequence[Cell]) -> Cell:
    return Cell(
        statistics.median(cell.rate for cell in cells),
        statistics.median(cell.p50 for cell in cells),
        statistics.median(cell.p99 for cell in cells),
        sum(cell.bad for cell in cells),
        statistics.median(cell.cpu for cell in cells),
    )


def payloads(folder: Path) -> dict[str, Payload]:
    """small: overhead decides; deep: memory does, batching helps; conv: computing does."""
    chance = np.random.default_rng(1)
    row = chance.random((1, 784)).astype(np.float32)
    deep = onnx_models.perceptron(folder / "deep.onnx", (784, *[2560] * 11, 10))
    return {
        "small": Payload(onnx_models.perceptron(folder / "small.onnx"), row),
        "deep": Payload(deep, row),
        "conv": Payload(onnx_models.convolutions(folder / "conv.onnx", 9, 128), row),
    }


def main() -> None:
    """Measure and print; with ``--write`` change the docs."""
    parser = argparse.ArgumentParser(description="Windlass beside other model servers.")
    parser.add_argument("--only", default="")
    parser.add_argument("--models", default="small,deep,conv")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing; install the package wrk")
    wanted = [each for each in options.only.split(",") if each]
    results: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, payload in payloads(Path(folder)).items():
            if name not in options.models.split(","):
                continue
            contenders = [c for c in CONTENDERS if not wanted or c.name in wanted]
            limits = {rows: raw_limit(payload, rows, 1) for rows in (1, 32)}
            cells = measure(contenders, payload, options.rounds, options.seconds)
            limits = {
                rows: (limit + raw_limit(payload, rows, 1)) / 2 for rows, limit in limits.items()
            }
            results[name] = {
                "limits": limits,
                "cells": {
                    contender: {c: vars(median(many)) for c, many in by.items()}
                    for contender, by in cells.items()
                },
            }
            print(name, "raw", {rows: round(limit) for rows, limit in limits.items()}, flush=True)
    print(json.dumps(results, indent=1))
    if options.write:
        write_pages(results)


if __name__ == "__main__":
    main()
