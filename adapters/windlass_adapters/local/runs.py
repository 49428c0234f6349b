"""Runs: the attempts of Jobs as folders, ``runs/NAME``, as the daemon sees them (hops 5 and 7).

A folder appears whole, by rename. What happens in it is its runner's; the daemon reads the records
and never waits. All methods are blocking, and quick; ``begin`` is for the event loop's thread.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Literal, NamedTuple

from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.base import (
    Absent,
    Create,
    External,
    Found,
    LogChunk,
    Observation,
    Owner,
    State,
    TerminalError,
    TransientError,
    Unknown,
)
from windlass_adapters.local import runner
from windlass_adapters.local.jobs import RUN_ROLE, RunBody
from windlass_adapters.local.processes import ProcessId, boot_id, is_alive, kill, marked, send
from windlass_adapters.local.records import BrokenRecordError, claim, read_process
from windlass_adapters.local.runfolder import STAGING, ExitRecord, RunFolders, RunRecord
from windlass_adapters.local.starting import Starter
from windlass_adapters.local.storage import load, writing
from windlass_adapters.program import short
from windlass_adapters.secrets import resolve_secret
from windlass_schemas import Reason

LOG_PIECE = 64 * 1024
_PATIENCE = 10.0
"""Seconds beyond the grace that a runner has to end a cancelled run."""


class Begun(NamedTuple):
    """A run whose order was given, and whose runner has not answered yet."""

    given: Mapping[str, object]
    runner: socket.socket


class Runs:
    """All runs below one folder."""

    def __init__(
        self, root: Path, store: ArtifactStore, grace: timedelta, starter: Starter
    ) -> None:
        self._root = root.absolute()
        self._starter = starter
        self._grace = grace.total_seconds()
        self._folders = RunFolders(self._root, store, self._grace)

    def sweep(self) -> None:
        """Remove what a killed daemon left half made or half removed."""
        beside = self._root.parent
        half = [
            *self._root.glob(".*-*"),
            *(each for begin in (STAGING, runner.REHEARSAL) for each in beside.glob(f"{begin}*")),
        ]
        for folder in half:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Keep nothing ready any more. What runs goes on."""
        self._starter.close()
        self._folders.close()

    def observe(self, external: External) -> Observation:
        """What that run is doing."""
        try:
            return self._look(external.name)
        except (BrokenRecordError, OSError) as error:
            return Unknown(f"{error}; remove {self._root / external.name} if it is of no use")

    def find(self, owner: Owner) -> list[Found]:
        """Every run of an owner. Raises BrokenRecordError, OSError."""
        found = []
        for folder in sorted(self._root.glob(f"[!.]*-{short(owner.uid)}-*")):
            seen = self._look(folder.name)
            if isinstance(seen, Found) and seen.owner_uid == owner.uid:
                found.append(seen)
        return found

    def begin(self, owner: Owner, action: Create) -> Begun | None:
        """Begin a run at once, if all that it needs is ready; None when it takes any time.

        A few names and one file are written, which takes less time than to wake a thread for it.
        ``create`` sees how it went. Raises what that raises.
        """
        folder = self._folder(action.wanted.name)
        body = RunBody.model_validate(action.wanted.body)
        if body.files or body.inputs or not self._folders.ready or folder.exists():
            return None
        given = _declared_environment(body)
        runner = self._starter.at_hand()
        if runner is None:
            return None
        try:
            with writing(self._root):
                self._folders.make(folder, owner, action, body)
        except BaseException:
            self._starter.leave(runner)
            raise
        if not self._starter.ask(runner, folder, given):
            self._starter.leave(runner)
            return None
        return Begun(given, runner)

    def create(self, owner: Owner, action: Create, begun: Begun | None = None) -> Found:
        """Prepare the folder if it is not there, start its runner if none has started."""
        name = action.wanted.name
        folder = self._folder(name)
        record = load(folder / runner.RUN, RunRecord)
        if record is not None and record.uid != owner.uid:
            raise TerminalError(f"run {name} belongs to another object; remove {folder}")
        if begun is not None:
            self._start(folder, begun.given, begun.runner)
        elif record is None or read_process(folder / runner.CLAIM) is None:
            body = RunBody.model_validate(action.wanted.body)
            given = _declared_environment(body)
            with writing(self._root):
                if record is None:
                    self._clear(folder)
                    self._folders.make(folder, owner, action, body)
                self._start(folder, given)
        seen = self._look(name)
        if isinstance(seen, Found):
            return seen
        log = folder / runner.LOG
        raise TransientError(f"run {name} ended before it began; {log} may say why")

    def _start(
        self, folder: Path, given: Mapping[str, object], asked: socket.socket | None = None
    ) -> None:
        self._starter.start(folder, given, asked)
        with suppress(OSError):  # then the next run's folder is made when it begins
            self._folders.prepare()

    def delete(self, owner: Owner, external: External) -> None:
        """Ask a run to stop; remove it once it has."""
        folder = self._folder(external.name)
        record = load(folder / runner.RUN, RunRecord)
        if record is None:
            return
        if record.uid != owner.uid:
            raise TerminalError(f"run {external.name} belongs to another object and is left alone")
        with writing(folder):
            # Whoever holds the claim may run: taking it here means that no runner can begin.
            if not claim(folder / runner.CLAIM):
                process = read_process(folder / runner.CLAIM)
                if process is not None and process.pid != os.getpid() and is_alive(process):
                    self._cancel(folder, process)
                    return
                if left := marked(folder):
                    kill(left)
                    return
            self._remove(folder)

    def read_log(
        self, external: External, stream: Literal["stdout", "stderr"], offset: int
    ) -> LogChunk:
        """A piece of a run's output."""
        seen = self._look(external.name)  # before the file: what comes later is read later
        running = isinstance(seen, Found) and seen.state is State.PROGRESSING
        start = max(0, offset)
        try:
            with (self._folder(external.name) / f"{stream}.log").open("rb") as file:
                file.seek(start)
                data = file.read(LOG_PIECE)
        except FileNotFoundError:
            data = b""
        return LogChunk(data, start + len(data), not running and len(data) < LOG_PIECE)

    def _folder(self, name: str) -> Path:
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise TerminalError(f"{name!r} is no name of a run")
        return self._root / name

    def _look(self, name: str) -> Observation:
        folder = self._folder(name)
        record = load(folder / runner.RUN, RunRecord)
        if record is None:
            return Absent()
        if (ended := load(folder / runner.EXIT, ExitRecord)) is not None:
            return _ended(name, record, ended)
        process = read_process(folder / runner.CLAIM)
        if process is None:
            if record.boot and record.boot != boot_id():
                return _ended(name, record, _KILLED)  # the power cut may have taken its claim
            return Absent()  # prepared, never begun: creating it again begins it
        if is_alive(process):
            return _running(name, record)
        if (ended := load(folder / runner.EXIT, ExitRecord)) is not None:  # it ended meanwhile
            return _ended(name, record, ended)
        if left := marked(folder):
            kill(left)
            return _running(name, record, "the runner was killed; what it started is being stopped")
        return _ended(name, record, _KILLED)

    def _cancel(self, folder: Path, process: ProcessId) -> None:
        """Tell the runner to stop; one that does not is killed with all that it started."""
        marker = folder / runner.CANCEL
        if not marker.exists():
            marker.touch()
        if time.time() - marker.stat().st_mtime > self._grace + _PATIENCE:
            send(process, signal.SIGKILL)
            kill(marked(folder))
        else:
            send(process, signal.SIGTERM)

    def _clear(self, folder: Path) -> None:
        """Take away what a power cut has left of a folder without its record."""
        if folder.exists():
            self._remove(folder)

    def _remove(self, folder: Path) -> None:
        trash = Path(tempfile.mkdtemp(dir=self._root, prefix=".trash-"))
        folder.rename(trash / folder.name)
        shutil.rmtree(trash, ignore_errors=True)  # gone by name; a rest is swept at the next start


_KILLED = ExitRecord(
    reason=Reason.INTERRUPTED,
    message="stopped from outside: the runner was killed or the machine restarted",
    attempt_counts=False,
)


def _declared_environment(body: RunBody) -> Mapping[str, object]:
    """The declared environment with its secrets, and the secrets alone for the runner to hide."""
    environment = {name: resolve_secret(value) for name, value in body.env.items()}
    secrets = [environment[n] for n, said in body.env.items() if environment[n] not in ("", said)]
    return {"environment": environment, "secrets": secrets}


def _running(name: str, record: RunRecord, message: str = "") -> Found:
    return Found(
        external=External(RUN_ROLE, name, name),
        owner_uid=record.uid,
        state=State.PROGRESSING,
        digest=record.digest,
        message=message,
    )


def _ended(name: str, record: RunRecord, ended: ExitRecord) -> Found:
    said = ended.model_dump(
        mode="json", include={"exit_code", "signal", "started_at", "ended_at"}, exclude_none=True
    )
    return Found(
        external=External(RUN_ROLE, name, name),
        owner_uid=record.uid,
        state=State.FAILED if ended.reason else State.SUCCEEDED,
        digest=record.digest,
        reason=ended.reason or None,
        message=ended.message,
        attempt_counts=ended.attempt_counts,
        outputs=ended.outputs,
        detail=said,
    )
