"""Hints that something moved in some folders: they save waiting, and may be lost (hop 1)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from watchfiles._rust_notify import RustNotify

GATHER = 50
"""Milliseconds over which changes are gathered into one hint."""
STEP = 20
"""Milliseconds without a change that end the gathering early."""


class Watch:
    """Watches folders with the kernel's notifications, or says why it cannot.

    A context manager: its thread and watches end with it.
    """

    def __init__(
        self,
        folders: Iterable[Path],
        *,
        recursive: bool,
        relevant: Callable[[str], bool] = lambda _path: True,
    ) -> None:
        self.trouble = ""
        """Why there are no hints; empty when there are."""
        self._relevant = relevant
        self._stop = threading.Event()
        self._notify: RustNotify | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="watch")
        paths = [str(folder) for folder in folders]
        try:
            self._notify = RustNotify(paths, False, False, 0, recursive, True)
        except (OSError, RuntimeError) as error:
            self.trouble = str(error)

    async def wait(self, seconds: float) -> bool:
        """Return at the first relevant change, True, or after that time, False."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0:
            if self._notify is None:
                await asyncio.sleep(left)
                return False
            changes = await loop.run_in_executor(self._thread, self._watch, left)
            if any(self._relevant(path) for path in changes):
                return True
        return False

    def _watch(self, seconds: float) -> list[str]:
        if self._notify is None:
            return []
        found = self._notify.watch(GATHER, STEP, max(1, int(seconds * 1000)), self._stop)
        return [] if isinstance(found, str) else [path for _, path in found]

    def close(self) -> None:
        """End the thread and the watches."""
        self._stop.set()
        self._thread.shutdown(wait=True)
        if self._notify is not None:
            self._notify.close()
            self._notify = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()
