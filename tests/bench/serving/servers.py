"""Servers on core 0: installed where they need it, started, asked once, ended."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench.serving.contenders import HERE, ROOT, Contender, environment
from bench.serving.load import Running
from bench.serving.payloads import Payload
from rig.serving import Serving

START = 60.0


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
