"""What a second daemon brings: the same work, which waits on a backend, by one and by two.

Run by ``make bench``, on a private PostgreSQL that waits for its disk. The work is Models that are
made once, each by a few calls that take their time; the clock runs from the moment when the daemons
are at work and the specs appear to the moment when the last object is Ready.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from rig.crew import crew
from rig.postgres import Postgres, running_postgres

OBJECTS = 60
LATENCY = 0.4
"""Seconds for each call to the backend."""
WORKERS = 4
GOAL = 1.8


def seconds(server: Postgres, names: tuple[str, ...]) -> tuple[float, dict[str, int]]:
    """How long these daemons take, and what each of them did."""
    with (
        tempfile.TemporaryDirectory(prefix="windlass-bench-") as folder,
        crew(server, Path(folder)) as made,
    ):
        for name in names:
            made.start(name, latency=LATENCY, workers=WORKERS, lease=30.0)
        made.joined(*names)
        made.declare(OBJECTS, deployments=False)
        begun = time.monotonic()
        made.until(lambda: made.ready() == OBJECTS, "all is Ready", 600)
        taken = time.monotonic() - begun
        assert made.faults() == []
        return taken, dict(made.shelf.by_daemon())


def main() -> int:
    """Print what was measured; 1 when the goal is missed."""
    with running_postgres(fast=False) as server:
        alone, _ = seconds(server, ("a",))
        shared, parts = seconds(server, ("a", "b"))
    gain = alone / shared
    print(f"{OBJECTS} objects, {LATENCY:g} s for each call, {WORKERS} workers a daemon")
    print(f"one daemon   {alone:7.1f} s  {OBJECTS / alone:6.1f} objects/s")
    print(f"two daemons  {shared:7.1f} s  {OBJECTS / shared:6.1f} objects/s  {parts}")
    verdict = "ok" if gain >= GOAL else "missed"
    print(f"second daemon: {gain:.2f} x (goal: at least {GOAL:g} x) {verdict}")
    return 0 if gain >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
