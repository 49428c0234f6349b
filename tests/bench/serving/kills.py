"""kill -9 of workers and of the supervisor under load: how many requests each costs.

``make kills-serving``. Each answer is checked. A killed worker may cost each client the request
that it had under way there; a killed supervisor, which answers none, must cost nothing. Exit code 1
if more was lost.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rig.serving import until
from rig.serving_fleet import Fleet, Load, one

CLIENTS = 8
WORKERS, SUPERVISORS = 5, 5
"""How many are killed, one after the other."""


def kill_worker(fleet: Fleet) -> None:
    """Kill one, and wait until another has taken its place."""
    lost = fleet.view("m")["lost"]
    os.kill(next(iter(fleet.workers())), signal.SIGKILL)
    until(lambda: fleet.view("m")["lost"] != lost, "it is missed")
    until(lambda: fleet.processes() == 2, "another serves")


def kill_supervisor(fleet: Fleet) -> None:
    """Kill it, leave the workers alone for a while, and start another."""
    fleet.process.kill()
    fleet.process.wait()
    time.sleep(0.5)
    fleet.start()
    until(lambda: fleet.processes() == 2, "it has taken them over")


def main() -> None:
    """Kill and count."""
    cases: list[tuple[str, Callable[[Fleet], None], int, bool, int]] = [
        ("workers, a new connection each time", kill_worker, WORKERS, False, CLIENTS),
        ("workers, connections kept", kill_worker, WORKERS, True, CLIENTS),
        ("supervisors, a new connection each time", kill_supervisor, SUPERVISORS, False, 0),
        ("supervisors, connections kept", kill_supervisor, SUPERVISORS, True, 0),
    ]
    too_many = False
    with (
        tempfile.TemporaryDirectory() as name,
        Fleet(Path(name) / "state", 0, "--processes", "2") as fleet,
    ):
        fleet.deploy("m", one(fleet), replicas=2)
        until(lambda: fleet.processes() == 2 and len(fleet.workers()) == 2, "two serve")
        for text, kill, times, keep, each in cases:
            with Load(fleet, CLIENTS, keep=keep) as load:
                for _ in range(times):
                    kill(fleet)
            lost, allowed = len(load.faults), times * each
            too_many |= lost > allowed
            print(
                f"{times} {text}: {lost} lost of {load.answers + lost:,} requests"
                f" ({allowed} could be under way) {load.faults[:3]}",
                flush=True,
            )
    if too_many:
        sys.exit("more was lost than was under way")


if __name__ == "__main__":
    main()
