"""How long the quickstart's story takes, and how much memory it holds. Prints one line a number.

Run by ``make bench``; uses a temporary repository and free ports, and stops what it starts.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import median

from rig.project import Daemon, Project

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 5
IDLE_SECONDS = 10


def resident(pid: int) -> float:
    """Resident memory of a process in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def processor_seconds(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def first_action_after(project: Project, moment: float) -> float | None:
    """Seconds from a moment to the newest run's creation, once there is one after it."""
    found = project.ask("/api/v1/objects/Job/default/train-wine/history")
    entries = found["entries"] if isinstance(found, dict) else []
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry["action"] == "Created":
            at = datetime.fromisoformat(str(entry["at"])).timestamp()
            return at - moment if at >= moment else None
    return None


def say(what: str, value: float, unit: str) -> None:
    """One line."""
    print(f"{what:<58} {value:8.2f} {unit}", flush=True)


def first_prediction(project: Project, body: str) -> Daemon:
    """Start, and measure until curl gets an answer."""
    started = time.monotonic()
    daemon = project.up()
    project.until(lambda: project.infer("wine", body), "a prediction", seconds=60)
    say("windlass up to the first prediction (trains)", time.monotonic() - started, "s")
    return daemon


def answers_otherwise(project: Project, body: str, before: Sequence[float]) -> None:
    """Wait for another model's answer."""
    project.until(
        lambda: project.infer("wine", body)["probabilities"] != before, "another model answers"
    )


def commits(project: Project, body: str) -> None:
    """Edit and commit a few times; measure to the first action and to the swap."""
    actions, swaps = [], []
    for i in range(ROUNDS):
        before = project.infer("wine", body)["probabilities"]
        project.edit("wine.yaml", f"regularization: {i + 1}.0", f"regularization: {i + 2}.0")
        project.commit(f"Round {i}")
        moment, started = time.time(), time.monotonic()
        answers_otherwise(project, body, before)
        swaps.append(time.monotonic() - started)
        action = first_action_after(project, moment)
        if action is not None:
            actions.append(action)
    if actions:
        say(f"commit to the first action, median of {len(actions)}", median(actions) * 1000, "ms")
    say(f"commit to the new model's answer, median of {ROUNDS}", median(swaps), "s")


def idle(daemon: Daemon, project: Project) -> None:
    """Memory and processor time when there is nothing to do."""
    used = processor_seconds(daemon.process.pid)
    time.sleep(IDLE_SECONDS)
    used = processor_seconds(daemon.process.pid) - used
    say("resident memory of the idle daemon", resident(daemon.process.pid), "MiB")
    say("processor time of the idle daemon", used / IDLE_SECONDS * 100, "%")
    for pid in project.processes():
        if b"windlass.serving" in Path(f"/proc/{pid}/cmdline").read_bytes():
            say("resident memory of the serving process", resident(pid), "MiB")


def main() -> None:
    """The story, with a stopwatch."""
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder), ROOT / "specs/quickstart")
        try:
            body = (project.repository / "request.json").read_text()
            daemon = first_prediction(project, body)
            commits(project, body)
            idle(daemon, project)
            started = time.monotonic()
            daemon.interrupt()
            say("SIGINT to the end of the daemon", time.monotonic() - started, "s")
            started = time.monotonic()
            project.up().await_answer()
            say("second start to the API's answer", time.monotonic() - started, "s")
        finally:
            project.close()


if __name__ == "__main__":
    main()
