"""CPU that the cluster and this process spend, whoever else uses the machine."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rig.slurm import Cluster

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Spent:
    """Seconds of a measured block; known after it."""

    wall: float = 0.0
    cpu: float = 0.0


@contextmanager
def measured(site: Cluster) -> Iterator[Spent]:
    """Measure a block: controller, munge, sshd with all that it runs, this process, its children.

    What ends meanwhile must have been waited for by its parent, as all of these do.
    """
    found = Spent()
    started, before = time.perf_counter(), _cpu(site.nursery.pid)
    try:
        yield found
    finally:
        found.wall = time.perf_counter() - started
        found.cpu = _cpu(site.nursery.pid) - before


def cpu_of(pid: int) -> float:
    """Seconds that one process has spent."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / _TICKS


def _cpu(root: int) -> float:
    """Of a process and those below it, with what they have waited for; and of this one."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))
                ticks[int(entry.name)] = sum(map(int, fields[11:15]))
    below, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        below += ticks.get(pid, 0)
        waiting += children.get(pid, [])
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return below / _TICKS + sum(used.ru_utime + used.ru_stime for used in own)
