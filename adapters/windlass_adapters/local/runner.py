"""The process that runs one attempt of a Job: started in hop 7, read in hop 5, outlives the daemon.

Forked by the nursery before there is anything to run, it waits for its order on a socket. It takes
the run's claim before anything else, so that a second one for the same folder does nothing, and it
writes ``exit.json`` after everything else. Standard library only: it stays small, and loads nothing
later, when the installation may have changed.
"""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict, cast

from windlass_adapters.local.outcome import FULL, Outcome, collect, ended, interrupted, not_started
from windlass_adapters.local.processes import (
    adopt_orphans,
    descendants,
    kill,
    this_process,
)
from windlass_adapters.local.records import (
    Json,
    claim,
    read_record,
    ready_claim,
    sync,
    write_record,
)

CANCEL, CLAIM, EXIT, RESERVE, RUN = "cancel", "claim.json", "exit.json", ".reserve", "run.json"
LOG = "runner.log"
REHEARSAL = ".rehearsal-"
"""What the names of folders begin with that a runner makes before it has an order."""
STREAMS = ("stdout.log", "stderr.log")
WATCHED = (signal.SIGTERM, signal.SIGCHLD)
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND
_RESERVED = 64 * 1024
_FOREVER = 3600.0
_UNKILLABLE = 10.0
"""Seconds after which a process that survives KILL (it waits for hardware) is left alone."""


class Given(TypedDict):
    """An order, as it comes over the socket. What is secret in it is nowhere else."""

    folder: str
    environment: dict[str, str]
    """The declared one."""
    secrets: list[str]
    """What the program's last words must not show."""


@dataclass(frozen=True)
class Order:
    """What to run: ``run.json``, as far as the runner needs it, and the declared environment."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    outputs: Mapping[str, str]
    store: str
    time_limit: float | None
    grace: float


class Stop:
    """Why and until when a program is being stopped."""

    def __init__(self, outcome: Outcome, grace: float) -> None:
        self.outcome = outcome
        self.kill_at = time.monotonic() + grace


class Run:
    """One attempt, from start to exit record."""

    def __init__(self, folder: Path, order: Order, secrets: Sequence[str]) -> None:
        self._folder = folder
        self._work = folder / "work"
        self._order = order
        self._secrets = secrets

    def run(self, begun: Callable[[], None]) -> Outcome:
        """Run the program to its end, then everything below it, then keep the outputs."""
        if (self._folder / CANCEL).exists():
            begun()
            return interrupted("cancelled before it started")
        for relative in self._order.outputs.values():
            (self._work / relative).parent.mkdir(parents=True, exist_ok=True)
        try:
            with _signals_noted():
                program = self.start()
        except OSError as error:
            return not_started(self._order.argv[0], error)
        finally:
            begun()
        self._make_durable()
        status, stopped = self._watch(program)
        _kill_all()
        if stopped is not None:
            return stopped.outcome
        outcome = ended(status, self._folder / "stderr.log", self._secrets)
        if outcome.reason:
            return outcome
        return collect(self._work, self._order.outputs, Path(self._order.store))

    def start(self) -> int:
        """Start the program; its process id. Raises OSError."""
        os.chdir(self._work)  # which the program inherits
        streams = (
            os.open(os.devnull, os.O_RDONLY),
            *(os.open(self._folder / name, _APPEND, 0o666) for name in STREAMS),
        )
        try:
            return _spawn(self._order.argv, self._order.environment, streams)
        finally:
            for descriptor in streams:
                os.close(descriptor)

    def _make_durable(self) -> None:
        """Until here, no power cut could take more than it ends. Now the program goes on anyway."""
        with suppress(OSError):  # a disk that is full already: nothing to keep room for
            (self._folder / RESERVE).write_bytes(b"\0" * _RESERVED)
        with suppress(OSError):  # a disk that fails shows when the exit record is written
            for path in (
                self._folder / RUN,
                self._folder / CLAIM,
                self._folder,
                self._folder.parent,
            ):
                sync(path)

    def _watch(self, program: int) -> tuple[int, Stop | None]:
        """Wait for the end; TERM at the limit or on request, KILL after the grace."""
        seconds = self._order.time_limit
        limit = float("inf") if seconds is None else time.monotonic() + seconds
        status: int | None = None
        stop: Stop | None = None
        while True:
            ends = _reap()
            status = ends.get(program, status)
            if status is not None and (stop is None or not descendants(os.getpid())):
                return status, stop
            now = time.monotonic()
            if stop is None and now >= limit:
                stop = self._stop(self._too_long())
            elif stop is not None and now >= stop.kill_at:
                kill(descendants(os.getpid()))
            signalled = _next_signal(limit - now if stop is None else 0.2)
            if signalled == signal.SIGTERM and stop is None:
                stop = self._stop(self._cancelled())

    def _stop(self, outcome: Outcome) -> Stop:
        kill(descendants(os.getpid()), signal.SIGTERM)
        return Stop(outcome, self._order.grace)

    def _too_long(self) -> Outcome:
        return Outcome(
            "TimeLimitExceeded",
            f"ran longer than timeLimit ({self._order.time_limit:g} s) and was stopped;"
            " raise the limit or make the program faster",
        )

    def _cancelled(self) -> Outcome:
        if (self._folder / CANCEL).exists():
            return interrupted("cancelled")
        return interrupted("stopped from outside (SIGTERM)")


def _spawn(argv: Sequence[str], environment: Mapping[str, str], streams: Sequence[int]) -> int:
    """Start a program in a group of its own, found by its own PATH. Raises OSError.

    Nothing of this process is copied (vfork), which would take longer than all that lies between a
    message and here.
    """
    refused: list[OSError] = []
    for program in _candidates(argv[0], environment):
        try:
            return os.posix_spawn(
                program,
                list(argv),
                environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, fd, i) for i, fd in enumerate(streams)],
                setpgroup=0,
                setsigdef=_IGNORED_BY_PYTHON,
            )
        except OSError as error:
            refused.append(error)
    telling = [error for error in refused if error.errno not in (errno.ENOENT, errno.ENOTDIR)]
    raise (telling or refused)[0]


def _candidates(name: str, environment: Mapping[str, str]) -> Sequence[str]:
    """Where a program may be: those that are there, or the last place of all."""
    if "/" in name:
        return (name,)
    places = [f"{folder}/{name}" for folder in os.get_exec_path(environment)]
    return [place for place in places if Path(place).exists()] or places[-1:] or (name,)


@contextmanager
def _signals_noted() -> Iterator[None]:
    """Miss no signal while a program starts, which would inherit that they are blocked.

    From its end on they are, and one that came meanwhile is there to be waited for.
    """
    came: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        if came:
            os.kill(os.getpid(), signal.SIGTERM)


def _reap() -> dict[int, int]:
    """Exit codes (a signal is negative) of all children that have ended."""
    ends: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ends
        if pid == 0:
            return ends
        ends[pid] = os.waitstatus_to_exitcode(status)


def _next_signal(timeout: float) -> int | None:
    info = signal.sigtimedwait(WATCHED, max(0.0, min(timeout, _FOREVER)))
    return None if info is None else info.si_signo


def _kill_all() -> None:
    """Whatever the program left running: nothing may write to a run that has ended."""
    give_up = time.monotonic() + _UNKILLABLE
    while (pids := descendants(os.getpid())) and time.monotonic() < give_up:
        kill(pids)
        _reap()
        _next_signal(0.02)


def _record(folder: Path, outcome: Outcome, started: datetime) -> None:
    """Write the exit record. A full disk may not lose it: room is kept, then waited for."""
    record: dict[str, Json] = asdict(outcome) | {
        "started_at": started.isoformat(),
        "ended_at": datetime.now(UTC).isoformat(),
    }
    while True:
        (folder / RESERVE).unlink(missing_ok=True)
        try:
            write_record(folder / EXIT, record)
        except OSError as error:
            if error.errno not in FULL:
                raise
            if _next_signal(1.0) == signal.SIGTERM:
                return
        else:
            return


def _read_order(folder: Path, declared: Mapping[str, str]) -> Order:
    record = read_record(folder / RUN) or {}
    limit = record["time_limit"]
    return Order(
        argv=cast("list[str]", record["argv"]),
        environment=cast("dict[str, str]", record["environment"]) | dict(declared),
        outputs=cast("dict[str, str]", record["outputs"]),
        store=cast("str", record["store"]),
        time_limit=None if limit is None else cast("float", limit),
        grace=cast("float", record["grace"]),
    )


def attend(asked: socket.socket, guard: int, scratch: Path) -> None:
    """Wait for an order, take its run's claim, begin, say so, and run it to its end.

    ``guard`` is told which run it is. What can be done before there is an order, is.
    """
    adopt_orphans()
    this_process()
    ready = None if select.select([asked], [], [], 0)[0] else _rehearse(scratch)
    given = _receive(asked)
    if given is None:
        _forget(ready)
        return
    folder = Path(given["folder"])
    try:
        _log_to(folder / LOG)
        mine = claim(folder / CLAIM, durable=False, ready=ready)
    except FileNotFoundError:
        mine = False  # deleted before it began
    if not mine:
        asked.send(b"0")
        _forget(ready)
        return
    os.write(guard, os.fsencode(folder))

    def begun() -> None:
        _answer(asked)
        _forget(ready)

    _run(folder, given, begun)


def _rehearse(scratch: Path) -> Path | None:
    """Do once, with a program that does nothing, all that lies between an order and its program.

    What a forked process does for the first time is slow: each page that it writes to is copied
    then. The second time takes a third. What stays of it is a claim, ready to be put in place: to
    make a file takes as long as to begin a program.
    """
    record: dict[str, Json] = {"argv": ["/bin/true"], "environment": {}, "outputs": {}}
    record |= {"store": "", "time_limit": None, "grace": 0}
    place: Path | None = None
    try:
        place = Path(tempfile.mkdtemp(dir=scratch, prefix=REHEARSAL))
        folder, ready = place / "run", place / CLAIM
        (folder / "work").mkdir(parents=True)
        write_record(folder / RUN, record, durable=False)
        ready_claim(ready)
        claim(folder / CLAIM, durable=False, ready=ready)
        run = Run(folder, _read_order(folder, json.loads("{}")), ())
        with _signals_noted():
            program = run.start()
        os.waitpid(program, 0)
        shutil.rmtree(folder)
    except OSError:  # what fails here fails again in a run, and is told there
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
        return None
    finally:
        os.chdir("/")
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return ready


def _forget(ready: Path | None) -> None:
    if ready is not None:
        shutil.rmtree(ready.parent, ignore_errors=True)


def _answer(asked: socket.socket) -> None:
    """Not before the program has begun: whoever waits would take the processor from it."""
    with asked, suppress(OSError):  # the daemon may be gone: all the more must the run go on
        asked.send(b"1")


def _receive(asked: socket.socket) -> Given | None:
    """The order; None when nobody asks any more."""
    with asked.makefile("rb") as reading:
        size = int.from_bytes(reading.read(8), "big")
        text = reading.read(size)
    return cast("Given", json.loads(text)) if size and len(text) == size else None


def _log_to(path: Path) -> None:
    descriptor = os.open(path, _APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _run(folder: Path, given: Given, begun: Callable[[], None]) -> None:
    started = datetime.now(UTC)
    try:
        order = _read_order(folder, given["environment"])
        outcome = Run(folder, order, given["secrets"]).run(begun)
    except Exception as error:
        outcome = Outcome("Failed", f"the runner failed: {type(error).__name__}: {error}")
        _record(folder, outcome, started)
        raise  # into runner.log, for whoever looks for the fault
    _record(folder, outcome, started)
