"""The folder of a run: what it holds before the program starts (hop 7), and its records as values.

run.json      whose it is and how to run it
work/         the working directory, with the declared files
inputs/NAME/  the inputs
claim.json    the runner's identity, once there is one
stdout.log, stderr.log, runner.log
cancel        there once somebody asked it to stop
exit.json     how it ended, once it has

What every run has is made before there is a run, with nothing in it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field

from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.base import Create, Owner, TransientError
from windlass_adapters.local import runner
from windlass_adapters.local.jobs import RunBody
from windlass_adapters.local.processes import MARK, boot_id
from windlass_adapters.local.storage import fill
from windlass_adapters.program import arguments, variable
from windlass_adapters.program import text as text_of
from windlass_schemas import Artifact, Frozen, Reason

STAGING = ".staging-"
"""What the names of folders begin with that are no run's yet. They lie beside the runs."""
SPARE = 2
"""Folders that are ready at a time."""
_KEPT_VARIABLES = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR")


class RunRecord(Frozen):
    """``run.json``. Never a secret."""

    install: str
    uid: str
    key: str
    digest: str
    attempt: int
    argv: tuple[str, ...]
    environment: dict[str, str]
    """What every run gets; the declared environment reaches the runner another way."""
    outputs: dict[str, str]
    store: str
    time_limit: float | None
    grace: float
    boot: str = ""
    """When the machine was started that it was made on: ``boot_id``."""


class ExitRecord(Frozen):
    """``exit.json``."""

    reason: Reason | Literal[""]
    """Empty when it ended well."""
    message: str
    exit_code: int | None = None
    signal: str | None = None
    attempt_counts: bool
    outputs: Mapping[str, Artifact] = Field(default_factory=dict)
    started_at: datetime | None = None
    ended_at: datetime | None = None


class RunFolders:
    """Makes the folders of runs below one root."""

    def __init__(self, root: Path, store: ArtifactStore, grace: float) -> None:
        self._root = root
        self._store = store
        self._grace = grace
        self._spare: deque[Path] = deque()

    def make(self, folder: Path, owner: Owner, action: Create, body: RunBody) -> None:
        """Make all of it elsewhere, then give it its name. Raises TransientError, OSError."""
        while True:
            try:
                staging, ours = self._spare.popleft(), True
            except IndexError:
                staging, ours = self._laid_out(), False
            try:
                self._fill(staging, body)
                # The runner sees to it that the disk has it, once the program runs.
                fill(staging / runner.RUN, self._record(folder, owner, action, body))
                staging.rename(folder)
            except BaseException as error:
                gone = ours and not staging.exists()
                shutil.rmtree(staging, ignore_errors=True)
                if not (gone and isinstance(error, FileNotFoundError)):
                    raise
            else:
                return

    @property
    def ready(self) -> bool:
        """Whether a folder is."""
        return bool(self._spare)

    def prepare(self) -> None:
        """Have a folder ready for the next run: to make its files takes most of the time.

        Raises OSError.
        """
        if len(self._spare) < SPARE:
            self._spare.append(self._laid_out())

    def close(self) -> None:
        """Keep none ready any more."""
        while self._spare:
            shutil.rmtree(self._spare.popleft(), ignore_errors=True)

    def _laid_out(self) -> Path:
        """A folder with all that every run has. Its record is empty: it belongs to nobody yet."""
        self._root.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=self._root.parent, prefix=STAGING))
        try:
            (staging / "work").mkdir()
            (staging / runner.RUN).touch(0o600)
            for name in (runner.LOG, *runner.STREAMS):
                (staging / name).touch()
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        return staging

    def _fill(self, staging: Path, body: RunBody) -> None:
        copies = [(digest, staging / "work" / path) for path, digest in body.files.items()]
        copies += [
            (given.digest, staging / "inputs" / name / given.name)
            for name, given in body.inputs.items()
        ]
        for digest, path in copies:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._store.copy_to(digest, path)
            except FileNotFoundError:
                raise TransientError(
                    f"{path.relative_to(staging)} ({digest}) is not in the artifact store;"
                    " put it back, or let what makes it run again"
                ) from None
        if body.entrypoint is not None:
            (staging / "work" / body.entrypoint).chmod(0o755)

    def _record(self, folder: Path, owner: Owner, action: Create, body: RunBody) -> RunRecord:
        return RunRecord(
            install=owner.install,
            uid=owner.uid,
            key=str(owner.key),
            digest=action.wanted.digest,
            attempt=action.attempt,
            argv=(*_program(folder, body), *arguments(body.params)),
            environment=_environment(folder, owner, action.attempt, body),
            outputs=body.outputs,
            store=str(self._store.root.absolute()),
            time_limit=body.time_limit,
            grace=self._grace,
            boot=boot_id(),
        )


def _program(folder: Path, body: RunBody) -> tuple[str, ...]:
    if body.command is not None:
        return body.command
    script = str(folder / "work" / (body.entrypoint or ""))
    return (body.python or sys.executable, "-u", script) if script.endswith(".py") else (script,)


def _environment(folder: Path, owner: Owner, attempt: int, body: RunBody) -> dict[str, str]:
    """A small, clean base, and where and what the run is."""
    found = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    found |= {
        "WINDLASS_JOB": f"{owner.key.namespace}/{owner.key.name}",
        "WINDLASS_ATTEMPT": str(attempt),
        MARK: str(folder),
    }
    found |= {variable("PARAM", name): text_of(value) for name, value in body.params.items()}
    for name, given in body.inputs.items():
        found[variable("INPUT", name)] = str(folder / "inputs" / name / given.name)
    for name, path in body.outputs.items():
        found[variable("OUTPUT", name)] = str(folder / "work" / path)
    return found
