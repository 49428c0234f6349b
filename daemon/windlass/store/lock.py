"""One process per state folder: a file lock that says who holds it."""

from __future__ import annotations

import fcntl
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from windlass.store.base import StoreError


class FolderLock:
    """Held from construction to ``release`` or the end of the process, however it ends."""

    def __init__(self, file: Path) -> None:
        self._path = file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(
                f"the state folder {file.parent} cannot be written ({error.strerror});"
                " make it writable, or choose another with --state or WINDLASS_STATE"
            ) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self._holder()
            os.close(self._descriptor)
            raise StoreError(
                f"the state folder {file.parent} is in use by {holder};"
                " stop that one, or choose another folder with --state"
            ) from None
        self._introduce()

    def _introduce(self) -> None:
        mine = {"pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(mine).encode(), 0)

    def _holder(self) -> str:
        try:
            other = json.loads(os.pread(self._descriptor, 4096, 0))
            return f"another windlass (process {other['pid']}, since {other['since']})"
        except (ValueError, KeyError, OSError):
            return "another windlass"

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()
