"""Serving processes that a test run left behind when it was cut off: found by a mark, and ended.

They outlive whoever starts them, which is their nature, and with a Deployment they never end: each
would take a share of the machine from all later runs. Every process that a run starts has the run's
mark in its environment.
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
    ended = []
    for pid, mark in _marked():
        number, ticks, boot = mark.split(":")
        if not is_alive(ProcessId(int(number), int(ticks), boot)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                ended.append(pid)
    return ended


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
