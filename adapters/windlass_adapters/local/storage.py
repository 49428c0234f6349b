"""What is written in the state folder, read back strictly, and a disk that takes no more."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from windlass_adapters.base import WaitingError
from windlass_adapters.local.outcome import FULL
from windlass_adapters.local.records import BrokenRecordError, read_record, write_record
from windlass_schemas import Reason

M = TypeVar("M", bound=BaseModel)


def load(path: Path, model: type[M]) -> M | None:
    """A record as a value; None when there is none. Raises BrokenRecordError, OSError."""
    record = read_record(path)
    if record is None:
        return None
    try:
        return model.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BrokenRecordError(f"{path} cannot be read: {where}: {first['msg']}") from None


def save(path: Path, value: BaseModel, *, durable: bool = True) -> None:
    """Put a value in place of what is there, as ``write_record`` does. Raises OSError."""
    write_record(path, value.model_dump(mode="json", by_alias=False), durable=durable)


def fill(path: Path, value: BaseModel) -> None:
    """Write a value into a file that nobody reads yet. Raises OSError."""
    said = value.model_dump(mode="json", by_alias=False)
    path.write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Raises WaitingError, reason StorageFull, when the disk is full or read-only."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL | {errno.EACCES}:
            raise
        raise WaitingError(
            f"{folder} cannot be written: {error.strerror}; make room on that disk or make it"
            " writable, Windlass goes on by itself",
            reason=Reason.STORAGE_FULL,
        ) from error
