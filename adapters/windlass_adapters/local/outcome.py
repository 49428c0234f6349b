"""The outcome of a run: what its program left behind, and what to say about it.

Runs in the run's own process, after the program and before the exit record; standard library only.
The words are those of ``Reason``, which a test holds true.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from windlass_adapters.bundle import BundleError, files_below, pack
from windlass_adapters.content import keep
from windlass_adapters.local.records import Json

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors of a disk that takes no more; they pass when somebody makes room."""
_FROM_OUTSIDE = frozenset(
    {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}
)
_TAIL_BYTES = 4096
_TAIL_LINES = 12
_LISTED = 20


@dataclass(frozen=True)
class Outcome:
    """How a run ended. ``reason`` is empty when it ended well."""

    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    signal: str | None = None
    attempt_counts: bool = True
    outputs: Mapping[str, Json] = field(default_factory=dict)


def interrupted(message: str) -> Outcome:
    """Stopped from outside: no fault of the program's."""
    return Outcome("Interrupted", message, attempt_counts=False)


def not_started(program: str, error: OSError) -> Outcome:
    """The program is not there or cannot be run."""
    hint = "check the name, and that it is installed on this machine"
    if error.errno == errno.ENOEXEC:
        hint = "begin the script with a line such as #!/bin/sh"
    elif error.errno == errno.ENOENT and os.path.lexists(program):
        hint = "it exists, so the interpreter in its first line (#!) does not; mend that line"
    elif error.errno == errno.EACCES:
        hint = "make it a file that may be executed"
    return Outcome("Failed", f"cannot start {program}: {error.strerror}; {hint}")


def ended(status: int, log: Path, secrets: Sequence[str]) -> Outcome:
    """What the end of the program means, from its exit code or signal."""
    if status < 0:
        name = _signal_name(-status)
        if -status in _FROM_OUTSIDE:
            message = f"the program was killed from outside ({name}); is the machine out of memory?"
            return Outcome("Interrupted", message, signal=name, attempt_counts=False)
        message = f"the program crashed ({name}){_last_lines(log, secrets)}"
        return Outcome("Failed", message, signal=name)
    if status:
        message = f"exit code {status}{_last_lines(log, secrets)}"
        return Outcome("Failed", message, exit_code=status)
    return Outcome(exit_code=0)


def collect(work: Path, outputs: Mapping[str, str], store: Path) -> Outcome:
    """Keep the declared outputs of a program that ended well."""
    kept: dict[str, Json] = {}
    for name, relative in outputs.items():
        try:
            digest, size = _keep_one(work, relative, store)
        except _NotAnOutputError as error:
            message = f"output {name}: {relative} {error}; {_listing(work)}"
            return Outcome("OutputMissing", message, exit_code=0)
        except OSError as error:
            full = error.errno in FULL
            return Outcome(
                "StorageFull" if full else "Failed",
                f"output {name} cannot be kept in {store}: {error.strerror}; "
                + ("make room on that disk" if full else "check that folder"),
                exit_code=0,
                attempt_counts=not full,
            )
        kept[name] = {"digest": digest, "size": size, "name": Path(relative).name}
    return Outcome(exit_code=0, outputs=kept)


class _NotAnOutputError(Exception):
    """The path holds nothing that can be kept."""


def _keep_one(work: Path, relative: str, store: Path) -> tuple[str, int]:
    # Nothing of the run lives any more, so that nobody changes the path between look and open.
    real = Path(os.path.realpath(work / relative))
    if not real.is_relative_to(os.path.realpath(work)):
        raise _NotAnOutputError("leads out of the working directory; write a regular file there")
    if real.is_dir():
        return _keep_folder(real, relative, store)
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise _NotAnOutputError("was not written") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _NotAnOutputError("is not a regular file; an output is a file or a folder of files")
    with os.fdopen(descriptor, "rb") as file:
        return keep(store, file, relative)


def _keep_folder(folder: Path, relative: str, store: Path) -> tuple[str, int]:
    """All files of a folder, as one archive."""
    try:
        files = files_below(folder)
    except BundleError as error:
        raise _NotAnOutputError(f"{error}; write regular files there") from None
    if not files:
        raise _NotAnOutputError("is an empty folder; write a file there")
    incoming = store / "incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=incoming) as archive:
        pack(files, archive)
        archive.seek(0)
        return keep(store, archive, relative)


def _listing(work: Path) -> str:
    names = sorted(
        str((Path(folder) / name).relative_to(work))
        for folder, _, files in os.walk(work)
        for name in files
    )
    if not names:
        return "the working directory is empty"
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"the working directory holds {', '.join(names[:_LISTED])}{more}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _last_lines(log: Path, secrets: Sequence[str]) -> str:
    """The end of stderr, without the secrets that the program was given and may have printed."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        text = file.read().decode(errors="replace").replace("\0", "")
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    lines = [line for line in text.splitlines() if line.strip()][-_TAIL_LINES:]
    return "; stderr ends:\n" + "\n".join(lines) if lines else "; it wrote nothing to stderr"
