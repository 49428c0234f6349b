"""A process that keeps other people's daemons: they and all that they start end with it.

Run as a program it is the subreaper of what it starts: a daemon's orphans (a batch job's step, a
session of sshd) become its children, so that nothing is left behind, whichever way the test ends.
It reads one request a line on standard input and ends, with all descendants, when that closes.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Self

_PR_SET_CHILD_SUBREAPER = 36


class Nursery:
    """A running nursery, seen from the test.

    Args:
        enter: What precedes the program, such as a new mount namespace; it must exec.
        environment: Of everything started.
    """

    def __init__(
        self, enter: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            [*enter, sys.executable, "-I", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=None if environment is None else dict(environment),
            text=True,
            start_new_session=True,
        )
        self._pids: dict[str, int] = {}

    @property
    def pid(self) -> int:
        """Its own process: whose namespaces the daemons share."""
        return self._process.pid

    def start(self, name: str, argv: Sequence[str], log: Path) -> int:
        """Start a daemon whose output goes to ``log``; its process id."""
        self._pids[name] = int(self._ask({"argv": list(argv), "log": str(log)}))
        return self._pids[name]

    def alive(self, name: str) -> bool:
        """Whether a daemon runs; a zombie does not."""
        with contextlib.suppress(KeyError, OSError, IndexError):
            stat = Path(f"/proc/{self._pids[name]}/stat").read_text()
            return stat.rpartition(")")[2].split()[0] not in "ZX"
        return False

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a daemon a signal; nothing if it has ended."""
        if self.alive(name):
            os.kill(self._pids[name], number)

    def stop(
        self, name: str, number: signal.Signals = signal.SIGTERM, patience: float = 10
    ) -> None:
        """End a daemon, and wait until it has; after ``patience`` seconds with SIGKILL."""
        self.send(name, number)
        until = time.monotonic() + patience
        while self.alive(name):
            if time.monotonic() > until:
                self.send(name, signal.SIGKILL)
            time.sleep(0.01)

    def offspring(self, name: str) -> list[int]:
        """The processes below a daemon, at this moment."""
        return list(_descendants(self._pids[name]))

    def close(self) -> None:
        """End everything."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(30)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def _ask(self, request: Mapping[str, object]) -> str:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise AssertionError("the nursery has no pipes")
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        answer = stdout.readline().strip()
        if not answer.isdigit():
            raise AssertionError(f"the nursery could not start {request}: {answer or 'it ended'}")
        return answer


def _descendants(root: int) -> Iterator[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    todo = parents.get(root, [])
    while todo:
        pid = todo.pop()
        yield pid
        todo.extend(parents.get(pid, []))


def _keep(requests: IO[str], answers: IO[str]) -> None:
    """Start what is asked for until nobody asks any more, then end all of it."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in requests:
        request = json.loads(line)
        with Path(request["log"]).open("ab") as log:
            try:
                child = subprocess.Popen(
                    request["argv"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=_hear_children,
                )
            except OSError as error:
                print(error, file=answers, flush=True)
                continue
        print(child.pid, file=answers, flush=True)
        child.returncode = 0  # the kernel reaps it: SIGCHLD is ignored
    while mine := list(_descendants(os.getpid())):
        for pid in mine:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _hear_children() -> None:
    # An ignored SIGCHLD is inherited, and Slurm's daemons wait for their children.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _keep(sys.stdin, sys.stdout)
