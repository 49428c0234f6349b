"""A module that asks what time it is, as adapters do."""

from __future__ import annotations

import time


def now() -> tuple[float, float]:
    """By the clock, and by the one that never goes back."""
    return time.time(), time.monotonic()


def rest() -> None:
    """Sleep in a thread."""
    time.sleep(1)
