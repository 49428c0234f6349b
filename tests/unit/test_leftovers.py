"""What a test run left behind is ended by the next one, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from rig.leftovers import MARK, end_leftovers, end_our_leftovers, said
from rig.leftovers import _marked as all_marked
from windlass_adapters.local.processes import this_process

WAIT = "import time; time.sleep(600)"


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    found: list[subprocess.Popen[bytes]] = []
    yield found
    for each in found:
        each.kill()
        each.wait()


def run_of(mark: str | None, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    if mark is not None:
        environment[MARK] = mark
    return subprocess.Popen([sys.executable, "-c", WAIT, *arguments], env=environment)


def test_only_what_serves_for_a_run_that_is_gone_is_ended(
    started: list[subprocess.Popen[bytes]],
) -> None:
    living = this_process()
    gone = said(living._replace(start_ticks=living.start_ticks + 1))
    started += [
        run_of(gone, "windlass.serving"),
        run_of(said(living), "windlass.serving"),
        run_of(None, "windlass.serving"),
        run_of(gone, "something.else"),
    ]
    assert started[0].pid in end_leftovers()
    assert started[0].wait(20) == -9
    assert [each.poll() for each in started[1:]] == [None] * 3


def test_what_a_test_has_left_behind_is_told_and_ended(
    started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = said(this_process()), said(this_process()._replace(pid=1))
    started += [run_of(own, "windlass.serving"), run_of(other, "windlass.serving")]
    monkeypatch.setattr("rig.leftovers._marked", lambda: marked_among(started))
    (line,) = end_our_leftovers()
    assert line.startswith(f"{started[0].pid}: ")
    assert "windlass.serving" in line
    assert started[0].wait(20) == -9
    assert started[1].poll() is None


def marked_among(started: list[subprocess.Popen[bytes]]) -> list[tuple[int, str]]:
    """What the rig sees of these; the run of this test has serving processes of its own."""
    pids = {each.pid for each in started}
    return [(pid, mark) for pid, mark in all_marked() if pid in pids]


def test_this_run_is_marked() -> None:
    assert MARK in os.environ
