"""Load from wrk, closed loop, and what it measured."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bench.serving.contenders import Contender
from bench.serving.machine import Use
from bench.serving.payloads import Payload

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
    use: Use = field(default_factory=Use)
    """What else went on."""

    def __str__(self) -> str:
        return (
            f"{self.rate:9,.1f}/s p50 {self.p50:7.3f} p99 {self.p99:8.3f} ms, bad {self.bad},"
            f" cpu {self.cpu:8.1f} us; {self.use}"
        )


class Running(NamedTuple):
    """A server that runs."""

    process: int
    port: int


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
        lasting = max(round(seconds), 1)
        command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{lasting}s"]
        command += ["--timeout", "30s", "--latency", "-s", str(script), url]
        before, spent = Use.now(), cpu_seconds(server)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        with process.stdout as output:
            text = output.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, text
        spent = cpu_seconds(server) - spent
        use = Use.since(before, server=spent, client=usage.ru_utime + usage.ru_stime)
    times = {
        share: float(value) * _UNITS[unit]
        for share, value, unit in re.findall(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.M)
    }
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", text)[0])
    bad = sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", text)))
    for part in re.findall(r"Socket errors: (.*)", text):
        bad += sum(map(int, re.findall(r"\d+", part)))
    answered = int(re.findall(r"(\d+) requests in", text)[0])
    return Cell(rate, times["50"], times["99"], bad, spent / max(answered, 1) * 1e6, use)


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


def median(cells: Sequence[Cell]) -> Cell:
    return Cell(
        statistics.median(cell.rate for cell in cells),
        statistics.median(cell.p50 for cell in cells),
        statistics.median(cell.p99 for cell in cells),
        sum(cell.bad for cell in cells),
        statistics.median(cell.cpu for cell in cells),
    )
