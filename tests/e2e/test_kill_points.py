"""A process that ends at a named point, against real files, real SQLite and real runs.

Again and again specs are added, edited and removed. Each time the process is killed at a point, and
a fresh one takes up what it left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import pytest

from rig.dying import KILLED, LIST
from rig.killing import Books
from rig.onnx_models import identity
from rig.project import free_ports

SCRIPT = """\
#!/bin/sh
echo "$WINDLASS_RUN" >> {ledger}
cp {model} model.onnx
"""
KEPT = """\
apiVersion: windlass/v1
kind: Job
metadata: {name: kept}
spec: {entrypoint: train.sh, params: {who: kept}, outputs: {model: model.onnx}}
"""
STORY = """\
apiVersion: windlass/v1
kind: Job
metadata: {name: train}
spec: {entrypoint: train.sh, params: {version: 1}, outputs: {model: model.onnx}}
---
apiVersion: windlass/v1
kind: Model
metadata: {name: wine}
spec: {source: {job: {name: train, output: model}}}
---
apiVersion: windlass/v1
kind: Deployment
metadata: {name: wine}
spec: {model: wine}
"""
STAGES = ("new", "edited", "removed")
SAMPLE = {
    "new": ["starting.send>#1"],
    "edited": ["OpenTarget.apply>#1"],
    "removed": ["OpenTarget.delete>#1"],
}
"""For every commit; the long test takes all that there are."""


class Place:
    """State, specs and a ledger in a folder."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.specs = folder / "specs"
        self.ledger = folder / "ledger"
        self.version = 0
        (self.port,) = free_ports(1)
        self.specs.mkdir(parents=True)
        self.ledger.touch()
        script = SCRIPT.format(ledger=self.ledger, model=identity(folder / "m.onnx"))
        self.specs.joinpath("train.sh").write_text(script)
        self.specs.joinpath("kept.yaml").write_text(KEPT)

    def enter(self, stage: str) -> None:
        """Save what a stage declares: another version, or nothing but ``kept``."""
        story = self.specs / "story.yaml"
        if stage == "removed":
            story.unlink()
        else:
            self.version += 1
            story.write_text(STORY.replace("version: 1", f"version: {self.version}"))

    def live(self, point: str = "") -> subprocess.CompletedProcess[str]:
        """A process from its start to its end, or to its death at the point."""
        command = [sys.executable, "-m", "rig.dying", str(self.state), str(self.specs)]
        return subprocess.run(
            [*command, str(self.port), point],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def die_and_live(self, stage: str, point: str) -> bool:
        """Whether the point was reached; fails when a fresh process does not put things right."""
        self.enter(stage)
        died = self.live(point)
        assert died.returncode in (0, KILLED), (stage, point, died.stderr)
        done = self.live()
        assert done.returncode == 0, (stage, point, done.stderr)
        faults = self.faults()
        assert not faults, (stage, point, faults)
        return died.returncode == KILLED

    def faults(self) -> list[str]:
        """What is wrong after everything has settled: runs, books, serving processes."""
        starts = Counter(self.ledger.read_text().split())
        faults = list(Books(self.state / "windlass.db").faults())
        faults += [f"{run} was started {n} times" for run, n in starts.items() if n > 1]
        if len(starts) != self.version + 1:
            faults.append(f"{len(starts)} runs instead of {self.version + 1}")
        serving = [p for p in self.processes() if b"windlass.serving" in cmdline(p)]
        if len(serving) != 1:
            faults.append(f"{len(serving)} serving processes")
        return faults

    def points(self) -> dict[str, list[str]]:
        """The first of each point that a fault-free run comes by, by stage."""
        found: dict[str, list[str]] = {}
        for stage in STAGES:
            self.enter(stage)
            lines = self.live(LIST).stdout.splitlines()
            found[stage] = [line for line in lines if line.endswith("#1")]
        return found

    def processes(self) -> Iterator[int]:
        """Everything that works for this place."""
        mark = str(self.state).encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and mark in cmdline(int(entry.name)):
                yield int(entry.name)

    def close(self) -> None:
        """Stop whatever still runs."""
        while found := list(self.processes()):
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


def cmdline(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    found = Place(tmp_path)
    yield found
    found.close()


def die_at(place: Place, points: Mapping[str, Sequence[str]]) -> int:
    """Add, edit and remove as often as there are points to die at; how often it died."""
    deaths = 0
    for trio in zip_longest(*(points[stage] for stage in STAGES), fillvalue=""):
        for stage, point in zip(STAGES, trio, strict=True):
            deaths += place.die_and_live(stage, point)
    return deaths


@pytest.mark.timeout(120)
def test_a_process_killed_after_an_effect_is_made_good_by_the_next(place: Place) -> None:
    """While a run is being started, after an update and after a removal."""
    assert die_at(place, SAMPLE) == 3


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_process_killed_at_any_point_is_made_good_by_the_next(place: Place) -> None:
    """Every sort of point that a fault-free run comes by, in each of the stages."""
    points = place.points()
    number = sum(map(len, points.values()))
    deaths = die_at(place, points)
    print(f"{number} points, {deaths} deaths")  # noqa: T201
    assert deaths > number * 0.8
