"""The process that keeps runners ready: hop 7. One for each local Target that has started a run.

``python -m windlass_adapters.local.nursery FOLDER DESCRIPTOR``. Starting an interpreter takes
longer than all else between a message and its run, so it is done before: this process has loaded
what a runner needs, forks a few ahead, and one more for each byte that it reads. A runner gets a
socket of its own, whose other end goes to the daemon. Its parent is its guard: a process that waits
for its end, and stops what it leaves behind when it is killed. Both have left this process's
session and outlive it. When the daemon is gone, this process goes, and so do runners without an
order. Standard library only.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import NamedTuple

from windlass_adapters.local import runner
from windlass_adapters.local.processes import kill, marked

AHEAD = 2
"""Runners that are ready at a time; of a crowd, the others wait for a fork each."""
_UNKILLABLE = 10.0
"""Seconds after which what survives KILL is left to the daemon."""


class _Duty(NamedTuple):
    """What a forked runner has to do with."""

    asked: socket.socket
    """Where its order comes from."""
    guard: int
    """Where it says which run it has."""


def main() -> None:
    """Offer runners for as long as somebody asks; in each of them, be one."""
    gc.freeze()  # or each fork would copy the pages that it counts references in
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # guards end when they like
    with socket.socket(fileno=int(sys.argv[2])) as asked:
        duty = _keep(asked)
    if duty is not None:
        runner.attend(*duty, Path(sys.argv[1]))


def _keep(asked: socket.socket) -> _Duty | None:
    """Fork one runner for each that is asked for. In a runner: its duty."""
    for _ in range(AHEAD):
        if (duty := _offer(asked)) is not None:
            return duty
    while asked.recv(1):
        if (duty := _offer(asked)) is not None:
            return duty
    return None


def _offer(asked: socket.socket) -> _Duty | None:
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        asked.close()
        theirs.close()
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        reading, writing = os.pipe()
        if (pid := os.fork()) == 0:
            os.close(reading)
            os.setsid()
            return _Duty(ours, writing)
        ours.close()
        os.close(writing)
        _guard(pid, reading)
        os._exit(0)
    ours.close()
    with theirs:
        socket.send_fds(asked, [b"r"], [theirs.fileno()])
    return None


def _guard(pid: int, reading: int) -> None:
    """Wait for a runner's end. One that is killed cannot stop what it started: do it then."""
    _, status = os.waitpid(pid, 0)  # first: to read at once would wake this process at each start
    with os.fdopen(reading, "rb") as told:
        run = told.read()
    give_up = time.monotonic() + _UNKILLABLE
    while run and status and time.monotonic() < give_up:
        if not (left := marked(Path(os.fsdecode(run)))):
            return
        kill(left)
        time.sleep(0.02)


if __name__ == "__main__":
    main()
