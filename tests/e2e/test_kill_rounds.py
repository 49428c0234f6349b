"""kill -9 at random moments, round after round, while a user edits, reverts, adds and deletes."""

from __future__ import annotations

import pytest

from rig.killing import kill_rounds
from rig.project import Project


@pytest.mark.timeout(180)
def test_a_daemon_killed_ten_times_leaves_everything_as_declared(stub: Project) -> None:
    """No run twice, no gap in the events, no failed request, and silence at the end."""
    kill_rounds(stub, rounds=10, seed=1, idle=2)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_daemon_killed_two_hundred_times_leaves_everything_as_declared(stub: Project) -> None:
    """The same, for as long as it takes to hit every window."""
    story = kill_rounds(stub, rounds=200, seed=2, idle=15)
    print(f"{story.rounds} rounds, {dict(story.moves)}, {len(story.starts())} runs")  # noqa: T201
