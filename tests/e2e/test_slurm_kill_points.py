"""A daemon that is killed on its way to Slurm: each run is started once, and nobody else is harmed.

The twelve moments at which it hurts most, against a real cluster. What happens on the login node is
stopped at gates around Slurm's own commands; what happens in the daemon ends it from within.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.dying import KILLED
from rig.slurm import Cluster, cluster
from rig.slurm_site import Site
from rig.slurm_story import Story

WITHIN = {
    "after the intent": "SqliteStore.intend>#1",
    "in the middle of staging": "SFTPClientFile.write>#2",
    "after staging": "Staging.prepare>#1",
    "after the reply, before it is recorded": "OpenTarget.apply>#1",
    "while outputs are fetched": "SFTPClientFile.read>#2",
    "before outputs are fetched": "Fetching.fetch<#2",
}
"""Moment -> point in the daemon."""
SAMPLE = {"after the reply, before it is recorded"}
"""For every commit."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(False, id="no-accounting"),
        pytest.param(True, id="accounting", marks=pytest.mark.long),
    ],
)
def site(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster for these tests."""
    with cluster(Site(accounting=request.param)) as running:
        yield running


@pytest.fixture
def story(site: Cluster, tmp_path: Path) -> Iterator[Story]:
    """A project on it."""
    told = Story(site, tmp_path)
    yield told
    told.close()


def _points() -> list[object]:
    return [
        moment if moment in SAMPLE else pytest.param(moment, marks=pytest.mark.long)
        for moment in WITHIN
    ]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("moment", _points())
def test_a_daemon_that_dies_at_a_point_of_its_own_doubles_and_loses_nothing(
    story: Story, moment: str
) -> None:
    """The next one takes up what it left."""
    story.go()
    assert story.mortal(WITHIN[moment]).ended() == KILLED
    story.project.up()
    story.settle()
    assert story.faults() == []


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "gate", [pytest.param("sbatch.before", marks=pytest.mark.long), "sbatch.after"]
)
def test_a_daemon_that_is_killed_while_sbatch_runs_finds_the_job_again(
    story: Story, gate: str
) -> None:
    """The program on the login node goes on without it, and writes down what it did."""
    story.go()
    story.shut(gate)
    daemon = story.project.up()
    story.until(lambda: story.met(gate), f"stopped at {gate}")
    daemon.kill()
    story.project.up()
    story.open(gate)
    story.settle()
    assert story.faults() == []


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("gate", ["sbatch.before", "sbatch.after"])
def test_a_daemon_and_a_login_node_that_go_together_leave_no_doubt(story: Story, gate: str) -> None:
    """Neither knows whether the job was submitted; the queue and the time tell."""
    story.go()
    story.shut(gate)
    daemon = story.project.up()
    story.until(lambda: story.met(gate), f"stopped at {gate}")
    daemon.kill()
    story.kill_met(gate)
    story.project.up()
    story.settle()
    assert story.faults() == []


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_daemon_that_is_killed_after_the_id_is_kept_and_before_it_hears_of_it(
    story: Story,
) -> None:
    """The id is on the cluster's disk: the next one reads it there."""
    story.go()
    story.shut("sbatch.before")
    daemon = story.project.up()
    story.until(lambda: story.met("sbatch.before"), "stopped before sbatch")
    daemon.process.send_signal(signal.SIGSTOP)
    story.open("sbatch.before")
    jobs = story.cluster.here(story.root)
    story.until(lambda: list(jobs.glob("jobs/*/*/jobid")), "the id is kept")
    daemon.kill()
    story.project.up()
    story.settle()
    assert story.faults() == []


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_daemon_that_dies_while_it_looks_for_a_lost_answer(story: Story) -> None:
    """Twice in a row: once with a submission under way, then while it asks what became of it."""
    story.go()
    story.shut("sbatch.after")
    daemon = story.project.up()
    story.until(lambda: story.met("sbatch.after"), "stopped after sbatch")
    daemon.kill()
    assert story.mortal("OpenTarget.find>#1").ended() == KILLED
    story.open("sbatch.after")
    assert story.mortal("OpenTarget.find<#2").ended() == KILLED
    story.project.up()
    story.settle()
    assert story.faults() == []


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("gate", ["scancel.before", "scancel.after"])
def test_a_daemon_that_is_killed_around_scancel_stops_what_it_should_and_nothing_else(
    story: Story, gate: str
) -> None:
    """Two Jobs are removed while they run; the others end well."""
    daemon = story.project.up()
    story.until(lambda: len(story.starts()) == story.jobs + 4, "everything runs")
    story.shut(gate)
    story.remove("job-1", "many")
    story.until(lambda: story.met(gate), f"stopped at {gate}")
    daemon.kill()
    story.project.up()
    story.open(gate)
    gone = {"Job/job-1", "Job/many"}
    story.until(lambda: all(not story.project.object(name) for name in gone), "both are gone")
    story.go()
    story.settle("job-1", "many")
    assert story.faults("job-1", "many") == []


@pytest.mark.long
@pytest.mark.timeout(400)
def test_a_daemon_that_dies_before_it_cleans_up(story: Story) -> None:
    """A finished Job is removed: its folder goes once, and the rest stays."""
    story.go()
    daemon = story.project.up()
    story.settle()
    story.remove("job-1")
    daemon.kill()
    assert story.mortal("OpenTarget.delete<#1").ended() == KILLED
    assert story.mortal("OpenTarget.delete>#1").ended() == KILLED
    story.project.up()
    story.until(lambda: not story.project.object("Job/job-1"), "it is gone")
    story.quiet(3)
    assert story.faults() == []
