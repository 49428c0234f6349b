"""How often a key may ask, over all workers: one bucket for each key, in memory that they share.

A file of sixteen bytes for each key that has a rate, mapped by every worker and locked for the
microseconds in which it is counted. A share for each worker would not do: a client keeps its
connection, and with it its worker.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from pathlib import Path

_BUCKET = struct.Struct("dd")
"""Tokens, and when they were counted, by the clock of the machine since its boot."""
_ANOTHER_BOOT = 60.0
"""Seconds by which a bucket is ahead of the clock that was counted before the machine started."""
_TRIES = 200
"""For the lock: whoever holds it counts, unless the process was stopped just then."""


class Rates:
    """The buckets in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, tuple[int, mmap.mmap]] = {}

    def take(self, name: str, rate: float, now: float) -> float:
        """Count one request; seconds until there may be another, 0 when this one may go."""
        lock, memory = self._open.get(name) or self._map(name)
        held = _lock(lock)
        try:
            tokens, filled = _BUCKET.unpack_from(memory)
            burst = max(rate, 1.0)
            if filled == 0.0 or filled > now + _ANOTHER_BOOT:
                tokens, filled = burst, now
            latest = max(now, filled)  # another worker may have looked at the clock later
            tokens = min(burst, tokens + (latest - filled) * rate)
            wait = 0.0 if tokens >= 1.0 else (1.0 - tokens) / rate
            _BUCKET.pack_into(memory, 0, tokens if wait else tokens - 1.0, latest)
        finally:
            if held:
                fcntl.flock(lock, fcntl.LOCK_UN)
        return wait

    def keep(self, names: set[str]) -> None:
        """Forget the buckets of all other keys."""
        for name in set(self._open) - names:
            lock, memory = self._open.pop(name)
            memory.close()
            os.close(lock)
            (self._folder / name).unlink(missing_ok=True)

    def _map(self, name: str) -> tuple[int, mmap.mmap]:
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._folder / name, os.O_RDWR | os.O_CREAT, 0o600)
        if os.fstat(lock).st_size < _BUCKET.size:
            os.ftruncate(lock, _BUCKET.size)
        found = self._open[name] = lock, mmap.mmap(lock, _BUCKET.size)
        return found


def _lock(lock: int) -> bool:
    for _ in range(_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.sched_yield()
        else:
            return True
    return False
