"""Hints that something moved in some folders: they save waiting, and may be lost (hop 1)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from watchfiles._rust_notify import RustNotify

STEP = 20
"""Milliseconds between two looks for notifications; one without a new one ends the gathering."""
GATHER = 2.5
"""Steps over which changes are gathered into one hint, at most."""
MAX_FOLDERS = 20_000


class Watch:
    """Watches folders, not what is below them, with the kernel's notifications.

    Only folders that somebody chose are watched: a recursive watch would follow links out of the
    source. Used as ``async with``; its thread and watches end with it.
    """

    def __init__(self, folders: Iterable[Path], step: int = STEP) -> None:
        """A hint comes one step to three after the change, of so many milliseconds each."""
        self.trouble = ""
        """Why there are no hints; empty when there are."""
        self._folders = list(folders)
        self._step = step
        self._stop = threading.Event()
        self._notify: RustNotify | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="watch")

    async def wait(self, seconds: float) -> bool:
        """Return at the first change, True, or after that time, False."""
        if self._notify is None:
            await asyncio.sleep(seconds)
            return False
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._wait, seconds)

    async def __aenter__(self) -> Self:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._start)
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

    def _start(self) -> None:
        if len(self._folders) > MAX_FOLDERS:
            self.trouble = f"{len(self._folders)} folders"
            return
        try:
            self._notify = RustNotify([str(f) for f in self._folders], False, False, 0, False, True)
        except (OSError, RuntimeError) as error:
            self.trouble = str(error)

    def _wait(self, seconds: float) -> bool:
        if self._notify is None:
            return False
        found = self._notify.watch(
            int(GATHER * self._step), self._step, max(1, int(seconds * 1000)), self._stop
        )
        return not isinstance(found, str)

    def _close(self) -> None:
        if self._notify is not None:
            self._notify.close()
            self._notify = None
