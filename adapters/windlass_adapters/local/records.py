"""Records: small JSON files that are there whole or not at all, whoever is killed when.

Serves hops 5 and 7. Standard library only.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from windlass_adapters.local.processes import ProcessId, this_process

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Record = dict[str, Json]


class BrokenRecordError(Exception):
    """A record is there and cannot be read: nobody knows what it said."""


def read_record(path: Path) -> Record | None:
    """The record, or None when there is none. Raises BrokenRecordError, OSError."""
    try:
        text = path.read_bytes()
        if not text:  # its name outlived a power cut, and its content did not
            return None
        value = json.loads(text)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise BrokenRecordError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise BrokenRecordError(f"{path} does not hold a record")
    return value


def write_record(path: Path, record: Mapping[str, Json], *, durable: bool = True) -> None:
    """Put the record in place of what is there. Raises OSError, also for a full disk.

    One that is not ``durable`` outlives every process; a power cut may leave it empty.
    """
    temporary = _write_beside(path, record, durable)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def claim(path: Path, *, durable: bool = True, ready: Path | None = None) -> bool:
    """Take a claim for this process; False when somebody has it. Never taken twice.

    A power cut may take one that is not ``durable``, with the process that has it. ``ready`` is
    what ``ready_claim`` has written: with it, no file is made now.
    """
    if ready is not None:
        with suppress(FileNotFoundError):  # somebody has swept it, or the folder is gone
            return _link(ready, path)
    temporary = _write_beside(path, this_process()._asdict(), durable)
    try:
        if not _link(temporary, path):
            return False
    finally:
        temporary.unlink(missing_ok=True)
    if durable:
        sync(path.parent)
    return True


def ready_claim(path: Path) -> None:
    """Write down who this process is, on the disk where it is to take a claim later."""
    path.write_text(json.dumps(this_process()._asdict()))


def _link(file: Path, path: Path) -> bool:
    try:
        os.link(file, path)
    except FileExistsError:
        return False
    return True


def read_process(path: Path) -> ProcessId | None:
    """The process that a claim names, or None when there is no claim."""
    record = read_record(path)
    if record is None:
        return None
    match record:
        case {"pid": int(pid), "start_ticks": int(ticks), "boot_id": str(boot)}:
            return ProcessId(pid, ticks, boot)
    raise BrokenRecordError(f"{path} names no process")


def _write_beside(path: Path, record: Mapping[str, Json], durable: bool) -> Path:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(record, ensure_ascii=False).encode())
            file.flush()
            if durable:
                os.fsync(descriptor)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)


def sync(path: Path) -> None:
    """Return when the disk has a file, or the names in a folder. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
