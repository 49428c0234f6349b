"""Keeps the folder of a model where it is. Outside the eight hops.

A model that sleeps, or whose process crashed, is loaded again from its file. Whoever cleans up may
remove a folder only if it gets the whole lock on it; it is shared here by all who serve from it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Hold:
    """A share of the lock on a folder, for as long as this lives."""

    def __init__(self, folder: Path) -> None:
        """Raises OSError."""
        self._open = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._open, fcntl.LOCK_SH)

    def __del__(self) -> None:
        if hasattr(self, "_open"):
            os.close(self._open)


def hold(model: Path) -> Hold | None:
    """Keep the folder of that file; None where there is none, as the load will say."""
    try:
        return Hold(model.parent)
    except OSError:
        return None
