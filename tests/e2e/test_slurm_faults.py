"""A cluster that breaks in every way that clusters do: nothing is doubled, lost or harmed by it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.cutting import Relay
from rig.slurm import Cluster, cluster
from rig.slurm_site import Site
from rig.slurm_story import Story

pytestmark = pytest.mark.timeout(600)


class Stage:
    """Makes projects and clusters for one test; what is made last ends first."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder

    def cluster(self, site: Site) -> Cluster:
        """A cluster of the test's own."""
        return self._stack.enter_context(cluster(site))

    def story(self, site: Cluster, name: str = "story", **how: object) -> Story:
        """A project on a cluster."""
        story = Story(site, self._folder / name, **how)  # type: ignore[arg-type] # passed on
        self._stack.callback(story.close)
        return story


@pytest.fixture(scope="module")
def site() -> Iterator[Cluster]:
    """A cluster without accounting, whose commands give up soon."""
    with cluster(Site(message_timeout=5)) as running:
        yield running


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """Makes projects on a cluster."""
    with contextlib.ExitStack() as stack:
        yield Stage(stack, tmp_path)


def _running(story: Story) -> None:
    story.until(lambda: len(story.starts()) == story.jobs + 4, "everything runs")


def test_sshd_dies_with_all_its_sessions_and_comes_back(site: Cluster, stage: Stage) -> None:
    """While jobs are submitted, and once more while they run."""
    story = stage.story(site, large=False)
    story.shut("sbatch.after")
    story.project.up()
    story.until(lambda: story.met("sbatch.after"), "a submission is under way")
    site.kill("sshd")
    site.drop_sessions()
    story.open("sbatch.after")
    site.start("sshd")
    _running(story)
    site.kill("sshd")
    site.drop_sessions()
    site.start("sshd")
    story.go()
    story.settle()
    assert story.faults() == []


@pytest.mark.long
def test_the_connection_is_cut_in_the_middle_of_answers(site: Cluster, stage: Stage) -> None:
    """Again and again, at random bytes; then it stays whole."""
    key = " ".join((site.layout.folder / "etc/host_key.pub").read_text().split()[:2])
    with Relay(site.ports.sshd, seed=7) as relay:
        params = {"port": relay.port, "knownHosts": None, "hostKey": key}
        story = stage.story(site, params=params)
        story.go()
        relay.cut_after(3_000, 40_000)
        story.project.up()
        story.until(lambda: relay.cuts >= 6, "it was cut often")
        relay.mend()
        story.settle()
        assert story.faults() == []


@pytest.mark.long
@pytest.mark.parametrize("gate", ["sbatch.before", ""])
def test_the_controller_freezes_while_jobs_are_submitted(
    site: Cluster, stage: Stage, gate: str
) -> None:
    """What sbatch gave up waiting for was submitted all the same: it is found, not doubled."""
    story = stage.story(site, large=False)
    story.go()
    if gate:
        story.shut(gate)
    else:
        site.pause("slurmctld")
    story.project.up()
    if gate:
        story.until(lambda: story.met(gate), "a submission is under way")
        site.pause("slurmctld")
        story.open(gate)
    unanswered = "does not answer|timed out|was lost|got no answer|not said yet"
    story.until(lambda: _says(story, unanswered), "it says that Slurm does not answer")
    site.resume("slurmctld")
    story.settle()
    assert story.faults() == []


def _says(story: Story, words: str) -> bool:
    shown = str(story.project.ask("/api/v1/objects"))
    return any(word in shown for word in words.split("|"))


@pytest.mark.long
@pytest.mark.parametrize("written_down", [True, False])
def test_the_controller_is_killed_while_jobs_run(
    site: Cluster, stage: Stage, written_down: bool
) -> None:
    """It comes back with what it had written down, and the runs end as they would have.

    What it had not written down it forgets, cancels or starts again: nothing is started twice.
    """
    story = stage.story(site, params={"lostAfter": "20s"})
    story.project.up()
    _running(story)
    if written_down:
        running, saved = time.time(), site.layout.folder / "state" / "job_state"
        site.await_state(
            lambda: saved.exists() and saved.stat().st_mtime > running, "saved its state"
        )
    site.kill("slurmctld")
    story.go()
    story.until(lambda: _says(story, "does not answer|Unable to contact"), "it says so")
    site.start("slurmctld")
    story.settle()
    assert story.faults(attempts=True) == []


@pytest.mark.long
def test_the_controller_forgets_jobs_that_it_had_just_taken(site: Cluster, stage: Stage) -> None:
    """Killed at once after a submission: ids are handed out again, and mean other jobs."""
    story = stage.story(site, large=False, params={"lostAfter": "20s"})
    story.shut("sbatch.after")
    story.project.up()
    story.until(lambda: story.met("sbatch.after"), "a submission is under way")
    site.kill("slurmctld")
    story.open("sbatch.after")
    site.start("slurmctld")
    story.strangers += site.add_foreign_lines(5)
    story.go()
    story.settle()
    assert story.faults(attempts=True) == []


@pytest.mark.long
def test_munge_stops_and_no_state_goes_back(site: Cluster, stage: Stage) -> None:
    """Slurm's commands fail; what was known of the runs stays, and then they end well."""
    story = stage.story(site, large=False)
    story.project.up()
    _running(story)
    site.stop("munged")
    story.until(lambda: _says(story, "does not answer"), "it says that Slurm does not answer")
    for name in story.names():
        assert story.project.condition(f"Job/{name}", "Succeeded")[0] != "False"
    site.start("munged")
    story.go()
    story.settle()
    assert story.faults() == []


@pytest.mark.long
def test_accounting_is_away_while_runs_end(stage: Stage) -> None:
    """The queue and the runs' own records are enough."""
    site = stage.cluster(Site(accounting=True, message_timeout=5))
    story = stage.story(site)
    story.project.up()
    _running(story)
    site.kill("slurmdbd")
    story.go()
    story.settle()
    assert story.faults() == []
    site.start("slurmdbd")


@pytest.mark.long
def test_a_run_that_the_queue_forgets_at_once_has_ended_all_the_same(stage: Stage) -> None:
    """MinJobAge of two seconds, and a daemon that was away for longer."""
    site = stage.cluster(Site(min_job_age=2))
    story = stage.story(site)
    story.go()
    daemon = story.project.up()
    _running(story)
    daemon.kill()
    site.await_state(lambda: not story.left(), "all have ended")
    site.await_state(lambda: not _finished(story), "the queue has forgotten them")
    story.project.up()
    story.settle()
    assert story.faults() == []


def _finished(story: Story) -> list[list[str]]:
    rows = story.cluster.squeue("%j|%T|%Z")
    return [row for row in rows if row[2].startswith(str(story.root))]


@pytest.mark.long
def test_the_disk_of_the_cluster_is_full_and_then_is_not(site: Cluster, stage: Stage) -> None:
    """Jobs wait with a reason that names the disk, and then run by themselves."""
    disk = site.small_disk("small", "3m")
    story = stage.story(site, large=False, disk=disk)
    story.go()
    stuffing = disk / "stuffing"
    site.ssh(f"dd if=/dev/zero of={stuffing} bs=4k 2>/dev/null", check=False)
    story.project.up()
    story.until(lambda: _says(story, "No space left"), "it says that the disk is full")
    site.ssh(f"rm {stuffing}")
    story.settle()
    assert story.faults() == []


@pytest.mark.long
def test_the_disk_of_the_cluster_is_read_only_and_then_is_not(site: Cluster, stage: Stage) -> None:
    """After an error a disk is mounted read-only: nothing is concluded from that."""
    disk = site.small_disk("fragile", "64m")
    story = stage.story(site, disk=disk, large=False)
    story.go()
    site.admin("mount", "-o", "remount,ro", str(disk))
    story.project.up()
    story.until(lambda: _says(story, "Read-only file system"), "it says that it cannot write")
    site.admin("mount", "-o", "remount,rw", str(disk))
    story.settle()
    site.admin("mount", "-o", "remount,ro", str(disk))
    story.remove("job-1")
    story.until(lambda: _says(story, "Read-only file system"), "it says that it cannot remove")
    assert story.project.object("Job/job-1")
    site.admin("mount", "-o", "remount,rw", str(disk))
    story.until(lambda: not story.project.object("Job/job-1"), "it is gone")
    assert story.faults() == []


@pytest.mark.long
def test_a_second_daemon_on_the_same_root_refuses(site: Cluster, stage: Stage) -> None:
    """Two installations, one folder on the cluster: the first has it, the second says whose."""
    first = stage.story(site, "first", large=False)
    first.project.up()
    _running(first)
    second = stage.story(site, "second", large=False, params={"remoteRoot": str(first.root)})
    second.project.up()
    second.until(lambda: _says(second, "belongs to another installation"), "it says so")
    first.go()
    second.go()
    first.settle()
    assert first.faults() == []
    assert second.starts().total() == 0


@pytest.mark.long
def test_two_daemons_on_the_same_state_are_one(site: Cluster, stage: Stage) -> None:
    """The second one refuses to start, and nothing is started twice."""
    story = stage.story(site, large=False)
    story.project.up().await_answer()
    assert story.project.up().ended() != 0
    story.go()
    story.settle()
    assert story.faults() == []


@pytest.mark.long
def test_ten_thousand_jobs_of_others_wait_and_are_left_alone(stage: Stage) -> None:
    """Each with a line of its own in the queue; ours run and are removed among them."""
    site = stage.cluster(Site())
    story = stage.story(site, large=False)
    story.strangers += site.add_foreign_lines(10_000 - len(story.strangers))
    assert len(site.foreign_lines()) == 10_000
    story.project.up()
    _running(story)
    story.remove("job-1")
    story.until(lambda: not story.project.object("Job/job-1"), "it is gone")
    story.go()
    story.settle("job-1")
    assert story.faults("job-1") == []
    assert len(site.foreign_lines()) == 10_000
