"""``windlass down``: end what serves, on purpose; the daemon must have ended before."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

from windlass.cli.failure import Failure
from windlass.cli.state import state_settings
from windlass.cli.terminal import note, raw
from windlass_adapters.local.processes import is_alive, send
from windlass_adapters.local.servers import serving_processes

_BOUND = 45.0
"""Seconds that requests under way may hold it up, with some room."""


def down(state: Path | None) -> None:
    """Ask every serving process below the state folder to finish and go, and wait for it."""
    root = state_settings(state).state
    _refuse_beside_a_daemon(root)
    found = 0
    for folder in sorted(root.glob("targets/*/*/serving")):
        target = "/".join(folder.parts[-3:-1])
        for process in serving_processes(folder):
            found += 1
            send(process, signal.SIGTERM)
            end = time.monotonic() + _BOUND
            while is_alive(process) and time.monotonic() < end:
                time.sleep(0.05)
            if is_alive(process):
                text = f"process {process.pid}, serving {target}, has not ended in {_BOUND:g} s"
                raise Failure(text, f"kill -9 {process.pid}")
            raw(f"{target}: process {process.pid} has ended")
    if not found:
        note("nothing serves")


def _refuse_beside_a_daemon(root: Path) -> None:
    try:
        pid = int(json.loads((root / "daemon.json").read_text())["pid"])
    except (OSError, ValueError, KeyError):
        return
    if Path(f"/proc/{pid}").exists():
        text = f"the daemon (process {pid}) runs, and would start again what is ended"
        raise Failure(text, f"kill {pid}, then windlass down")
