"""The cluster that the other tests lean on is a real one, and leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.slurm import Cluster, cluster
from rig.slurm_site import Site


@pytest.fixture(scope="module", params=[False, True], ids=["no-accounting", "accounting"])
def site(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster for these tests."""
    with cluster(Site(accounting=request.param)) as running:
        yield running


def test_a_users_job_runs_as_the_user_and_ends_in_what_the_cluster_remembers(site: Cluster) -> None:
    """Submitted over SSH, it runs on a node under the same account."""
    said = site.ssh(
        f"cd {site.login.root} && printf '#!/bin/sh\\nid -u\\n' > job.sh"
        " && sbatch --parsable --gres=gpu:1 --output=out job.sh"
    )
    job = said.strip().splitlines()[-1]
    site.await_state(
        lambda: [job, site.user.name, "job.sh", "COMPLETED"] in site.squeue(), "run the job"
    )
    assert site.here(site.login.root / "out").read_text() == f"{site.user.uid}\n"
    if site.site.accounting:
        row = f"{job}|COMPLETED|physics"
        asked = ("sacct", "-X", "-n", "-P", "-o", "JobID,State,Account")
        site.await_state(lambda: row in site.ssh(*asked).splitlines(), "account for the job")


def test_every_daemon_can_be_killed_and_comes_back(site: Cluster) -> None:
    """The queue survives, as far as the controller had written it down."""
    site.add_foreign_jobs(3000)
    daemons = ["munged", "slurmctld", "slurmd1", "sshd"]
    for daemon in [*daemons, *(["slurmdbd"] if site.site.accounting else [])]:
        if daemon == "slurmctld":
            site.stop(daemon)
        else:
            site.kill(daemon)
        site.start(daemon)
    assert site.foreign() == 3000


def test_nothing_of_a_cluster_is_left() -> None:
    """Neither a daemon nor a job that still runs nor a file."""
    with cluster() as running:
        folder = running.layout.folder
        script = running.here(running.login.root / "job.sh")
        script.write_text("#!/bin/sh\ntrap '' TERM HUP\necho $$ > pid\nexec sleep 600\n")
        where = str(running.login.root)
        running.run("sbatch", "--chdir", where, "--output=/dev/null", str(script))
        pid = running.here(running.login.root / "pid")
        running.await_state(lambda: pid.exists() and pid.read_text(), "start the job")
        job = int(pid.read_text())
        os.kill(job, 0)
    assert not folder.exists()
    assert not Path(f"/proc/{job}").exists()
