"""Processes that outlive the daemon: made here, and told apart from others that got their pid.

Serves hops 5 and 7. A pid alone proves nothing after a restart, so that a process is known by pid,
start time and boot. Standard library only; Linux only (``/proc``).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

LAUNCH_TIMEOUT = 20.0
"""Seconds for a new process to say that it stands on its own feet."""
MARK = "WINDLASS_RUN"
"""Environment variable that everything below a run carries: the run's folder."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


class ProcessId(NamedTuple):
    """Which process is meant, over restarts of the daemon and of the machine."""

    pid: int
    start_ticks: int
    boot_id: str


class _Stat(NamedTuple):
    state: str
    parent: int
    session: int
    start_ticks: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return _Stat(fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


@cache
def boot_id() -> str:
    """Differs after every start of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def this_process() -> ProcessId:
    """The caller's own identity."""
    return _identity_of(os.getpid())


@cache
def _identity_of(pid: int) -> ProcessId:
    """Of a process that is its own: after a fork it is another one."""
    stat = _stat(pid)
    assert stat is not None, "a process that runs is in /proc"
    return ProcessId(pid, stat.start_ticks, boot_id())


def is_alive(process: ProcessId) -> bool:
    """Whether that very process runs; a dead one that nobody has reaped does not."""
    stat = _stat(process.pid)
    return (
        stat is not None
        and stat.state not in "ZX"
        and stat.start_ticks == process.start_ticks
        and boot_id() == process.boot_id
    )


def send(process: ProcessId, number: signal.Signals) -> bool:
    """Signal that very process; False when it is gone. The pid cannot change hands meanwhile."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(process):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def _pids() -> Iterator[int]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            yield int(folder.name)


def descendants(root: int) -> list[int]:
    """Living processes below ``root``. Complete if ``root`` is a subreaper: orphans come to it."""
    children: dict[int, list[int]] = {}
    living: set[int] = set()
    for pid in _pids():
        if stat := _stat(pid):
            children.setdefault(stat.parent, []).append(pid)
            if stat.state not in "ZX":
                living.add(pid)
    found, pending = [], [root]
    while pending:
        below = children.get(pending.pop(), [])
        pending += below
        found += [pid for pid in below if pid in living]
    return found


def marked(folder: Path) -> list[int]:
    """Living processes that a run started, by the mark in their environment.

    Finds what a killed runner left behind, in whatever session or group that is by now.
    """
    mark = f"{MARK}={folder}".encode()
    found = []
    for pid in _pids():
        with suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            stat = _stat(pid)
            if mark in environment and stat is not None and stat.state not in "ZX":
                found.append(pid)
    return found


def kill(pids: Sequence[int], number: signal.Signals = signal.SIGKILL) -> None:
    """Signal several processes that were just listed; those that went meanwhile are fine."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def adopt_orphans() -> None:
    """Become the parent of every orphan below, so that ``descendants`` misses none."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Between fork and exec: be killed when the parent dies, however it dies."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def detach() -> Callable[[], None]:
    """Leave the caller's family: own session, own parent. Call before threads and event loops.

    Whoever started the program sees it end well once the returned function is called, and also
    when this process ends or becomes another program.
    """
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    os.setsid()
    return lambda: os.close(writing)


def module_command(module: str) -> list[str]:
    """How to run a module of ours."""
    return [sys.executable, "-P", "-m", module]


def module_environment() -> dict[str, str]:
    """The environment in which a module of ours finds all that this process finds."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def launch(module: str, arguments: Sequence[str], log: Path) -> None:
    """Run a module of ours that calls ``detach``; returns when it says that it stands.

    Raises TimeoutError, and OSError when it cannot be started.
    """
    try:
        with log.open("ab") as output:
            subprocess.run(
                [*module_command(module), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=module_environment(),
                start_new_session=True,
                timeout=LAUNCH_TIMEOUT,
                check=False,
            )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{module} did not start within {LAUNCH_TIMEOUT:.0f} s") from error
