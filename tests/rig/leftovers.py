"""Serving processes that a test run left behind when it was cut off: found by a mark, and ended.

They outlive whoever starts them, which is their nature, and with a Deployment they never end: each
would take a share of the machine from all later runs. Every process that a run starts has the run's
mark in its environment. A run that ends well says what its tests have left behind.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from windlass_adapters.local.processes import ProcessId, is_alive, this_process

MARK = "WINDLASS_TEST_RUN"
MODULE = b"windlass.serving"


def mark_this_run() -> None:
    """For all that this process starts; one of several that share the tests has its first's."""
    os.environ.setdefault(MARK, said(this_process()))


def said(run: ProcessId) -> str:
    """A run in a word."""
    return f"{run.pid}:{run.start_ticks}:{run.boot_id}"


def end_leftovers() -> list[int]:
    """End what serves for runs that are gone."""
    return [
        pid for pid, mark in _marked() if not is_alive(ProcessId(*_numbers(mark))) and _ended(pid)
    ]


def end_our_leftovers() -> list[str]:
    """End what serves for this run, which is over: each with what it was started with."""
    own, found = said(this_process()), []
    for pid, mark in _marked():
        words = (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        if mark == own and _ended(pid):
            found.append(f"{pid}: {words}")
    return found


def _numbers(mark: str) -> tuple[int, int, str]:
    pid, ticks, boot = mark.split(":")
    return int(pid), int(ticks), boot


def _ended(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def _marked() -> Iterator[tuple[int, str]]:
    """Every serving process with the mark that it has."""
    prefix = f"{MARK}=".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if MODULE not in (folder / "cmdline").read_bytes().split(b"\0"):
                continue
            for variable in (folder / "environ").read_bytes().split(b"\0"):
                if variable.startswith(prefix):
                    yield int(folder.name), variable.removeprefix(prefix).decode()
