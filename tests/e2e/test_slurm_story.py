"""specs/slurm as a user has it: a commit trains on the cluster, and the model is served here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.hpc import Hpc
from rig.project import Project
from rig.slurm import Cluster, cluster
from rig.slurm_site import Site

SPECS = Path(__file__).parents[2] / "specs/slurm"
SIF = Path(__file__).parents[1] / "data/apptainer/busybox.sif"
LONG = 90.0
"""Seconds for what goes over a cluster on a slow machine."""


@pytest.fixture(scope="module")
def site() -> Iterator[Cluster]:
    """A cluster with accounting, and the accounts that it knows."""
    with cluster(Site(accounting=True)) as found:
        yield found


@pytest.fixture
def hpc(site: Cluster, tmp_path: Path) -> Hpc:
    """Where the Target of the test lies."""
    return Hpc(site, tmp_path, grace="2s", setup=[f"export PATH={site.containers}:$PATH"])


@pytest.fixture
def project(hpc: Hpc, tmp_path: Path) -> Iterator[Project]:
    """The example, with the Target of the test and an image that holds no Python of its own."""
    specs = tmp_path / "tree"
    shutil.copytree(SPECS, specs)
    shutil.copy(SIF, specs / "busybox.sif")
    text = (specs / "wine.yaml").read_text()
    start, end = text.index("  params:\n    host:"), text.index("    defaults:\n")
    given = "".join(f"    {name}: {json.dumps(value)}\n" for name, value in hpc.params.items())
    text = f"{text[:start]}  params:\n{given}{text[end:]}"
    text = text.replace("image: docker://python:3.12-slim ", "image: busybox.sif ")
    binds = "    container:\n      binds: [/usr, /lib, /lib64]\n"
    text = text.replace("    mem: 1G\n", f"    mem: 1G\n{binds}")
    text = text.replace(
        "  entrypoint: train.py\n", "  entrypoint: train.py\n  python: /usr/bin/python3\n"
    )
    (specs / "wine.yaml").write_text(text)
    project = Project(tmp_path, specs)
    yield project
    project.close()


def label(project: Project) -> list[float]:
    """What wine this is."""
    answer = project.infer("wine", (SPECS / "request.json").read_text())
    return list(answer.get("label", []))


def test_a_commit_trains_on_the_cluster_and_serves_here(project: Project, hpc: Hpc) -> None:
    """Account, partition, dataset, image and artifact; an edit trains again, a revert does not."""
    project.up()
    project.until(lambda: project.ready("Deployment/wine"), "the model is served", LONG)
    assert label(project) == [1]
    job = project.status("Job/train-wine")
    assert json.loads(hpc_output(project, job.outputs["metrics"].digest))["accuracy"] > 0.9
    asked = ["sacct", "-X", "-n", "-P", "-o", "Account,Partition,State,Comment"]
    row = "physics|cpu|COMPLETED|Job/default/train-wine"
    project.until(lambda: row in hpc.cluster.ssh(*asked).splitlines(), "it is accounted for", LONG)
    assert "accuracy" in project.windlass("logs", "Job/train-wine")
    first = project.status("Model/wine").outputs["artifact"].digest

    project.edit("wine.yaml", "regularization: 0.01", "regularization: 0.5")
    project.commit("Regularize more")
    project.until(
        lambda: (
            project.ready("Deployment/wine")
            and project.status("Model/wine").outputs["artifact"].digest != first
        ),
        "the new model is served",
        LONG,
    )
    project.git("revert", "--no-edit", "HEAD")
    project.until(
        lambda: (
            project.ready("Deployment/wine")
            and project.status("Model/wine").outputs["artifact"].digest == first
        ),
        "the earlier model is served",
        LONG,
    )
    assert len(hpc.claims()) == 2


def hpc_output(project: Project, digest: str) -> str:
    """An artifact of the daemon's."""
    hexdigits = digest.removeprefix("sha256:")
    (found,) = project.state.glob(f"**/sha256/{hexdigits[:2]}/{hexdigits}")
    return found.read_text()


def test_a_placement_that_slurm_refused_is_mended_by_an_edit(project: Project, hpc: Hpc) -> None:
    """It goes at once, though nothing that decides the result has changed."""
    project.edit("wine.yaml", "partition: cpu", "partition: nowhere")
    project.commit("Name a partition that there is not")
    project.up()
    message = project.await_reason("Job/train-wine", "Ready", "BackendRefused")
    assert "invalid partition" in message
    project.edit("wine.yaml", "partition: nowhere", "partition: scavenge")
    project.commit("Name one that there is")
    project.until(lambda: project.ready("Job/train-wine"), "it has run", LONG)
    assert len(hpc.claims()) == 1


@pytest.mark.long
def test_killed_and_started_again_the_daemon_submits_nothing_twice(
    project: Project, hpc: Hpc
) -> None:
    """The run goes on meanwhile, and its end is taken over."""
    project.edit(
        "wine.yaml", "    regularization: 0.01\n", "    regularization: 0.01\n    steps: 1500\n"
    )
    project.commit("Take longer")
    daemon = project.up()
    project.until(lambda: hpc.claims(), "it runs", LONG)
    daemon.kill()
    project.up()
    project.until(lambda: project.ready("Job/train-wine"), "it has run", LONG)
    assert len(hpc.claims()) == 1


@pytest.mark.long
def test_what_leaves_the_repository_leaves_the_cluster(project: Project, hpc: Hpc) -> None:
    """Running or not."""
    project.edit(
        "wine.yaml", "    regularization: 0.01\n", "    regularization: 0.01\n    steps: 900000\n"
    )
    project.commit("Take very long")
    project.up()
    project.until(lambda: hpc.claims(), "it runs", LONG)
    (project.repository / "wine.yaml").unlink()
    project.windlass("approve", project.commit("Give it up"))
    project.until(lambda: not hpc.orders(), "nothing of it is left", LONG)
    running = [row for row in hpc.cluster.squeue("%j|%T") if row[1] in ("RUNNING", "PENDING")]
    assert running == []
