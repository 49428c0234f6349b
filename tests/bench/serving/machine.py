"""What else the machine did while something was measured, and what its two cores are to each other.

A rate that is lower than it should be has a reason: the host took the processor away (steal), the
client was the limit, or something else ran on the server's core.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

SERVER, CLIENT = 0, 1
"""The cores."""
_REST, _LONGEST_REST = 0.15, 5.0
"""Seconds between two slices."""
_SPIN = (
    "import time\nend=time.perf_counter()+1\nn=0\n"
    "while time.perf_counter()<end: n+=sum(range(1000))>0\nprint(n)"
)


class _Core(NamedTuple):
    """Seconds since the start of the machine."""

    busy: float
    stolen: float


class Moment(NamedTuple):
    """The machine at one time."""

    at: float
    cores: tuple[_Core, ...]


@dataclass(frozen=True)
class Use:
    """Shares of a time, 1 is one core."""

    client: float = 0.0
    """Of wrk: near 1 it is the client that is measured."""
    others: float = 0.0
    """Of the server's core, by anything but the server."""
    stolen: float = 0.0
    """Of the server's core, by the host."""

    @staticmethod
    def now() -> Moment:
        return Moment(time.monotonic(), _cores())

    @classmethod
    def since(cls, before: Moment, *, server: float, client: float = 0.0) -> Use:
        """``server`` and ``client`` are seconds of processor time since then."""
        seconds = time.monotonic() - before.at
        then, now = before.cores[SERVER], _cores()[SERVER]
        others = max(now.busy - then.busy - server, 0.0)
        return cls(client / seconds, others / seconds, (now.stolen - then.stolen) / seconds)

    def __str__(self) -> str:
        return f"client {self.client:.0%}, others {self.others:.0%}, stolen {self.stolen:.0%}"


def settle() -> None:
    """Wait until the server's core is idle: what a slice has begun must not go into the next.

    A server goes on with requests whose clients have hung up in the middle, for a second or more.
    """
    end = time.monotonic() + _LONGEST_REST
    while time.monotonic() < end:
        before = _cores()[SERVER].busy
        time.sleep(_REST)
        if _cores()[SERVER].busy - before < _REST * 0.2:
            return


def _cores() -> tuple[_Core, ...]:
    tick = os.sysconf("SC_CLK_TCK")
    found = []
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name != "cpu":
            user, nice, system = map(int, fields[:3])
            found.append(_Core((user + nice + system) / tick, int(fields[7]) / tick))
    return tuple(found)


def described() -> str:
    """The processor, and how much of the server's core is left while the client's is busy."""
    model = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    alone, beside = [], []
    for _ in range(3):
        alone.append(_spin(SERVER))
        with subprocess.Popen(
            ["taskset", "-c", str(CLIENT), sys.executable, "-c", _SPIN], stdout=subprocess.DEVNULL
        ):
            beside.append(_spin(SERVER))
    share = sorted(b / a for a, b in zip(alone, beside, strict=True))[1]
    siblings = Path(f"/sys/devices/system/cpu/cpu{SERVER}/topology/thread_siblings_list")
    return (
        f"{model}, {os.cpu_count()} virtual cores; threads of core {SERVER} as the guest is told:"
        f" {siblings.read_text().strip()}; core {SERVER} does {share:.0%} of its work while core"
        f" {CLIENT} is busy"
    )


def _spin(core: int) -> int:
    command = ["taskset", "-c", str(core), sys.executable, "-c", _SPIN]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
