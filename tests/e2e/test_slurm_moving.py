"""A task of the older submitter, imported: changing ``runner_location`` moves it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.command_line import windlass
from rig.project import Project
from rig.slurm import Cluster, cluster
from rig.slurm_site import Site

DATA = Path(__file__).parents[1] / "data" / "mltask"
PLACES = ("dev", "atena02")
_SCRIPT = """\
import os, time
with open({ledger!r}, "a") as file:
    file.write("began %s %s\\n" % (os.environ["SLURM_JOB_ID"], time.time()))
while not os.path.exists({ledger!r} + ".go"):
    time.sleep(0.1)
with open("model.pkl", "w") as file:
    file.write("trained\\n")
"""

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def sites() -> Iterator[dict[str, Cluster]]:
    """Two clusters, with the partitions that the file names."""
    lines = ("PartitionName=slurmpar Nodes=n[1-2]", "PartitionName=gpu Nodes=n[1-2]")
    with cluster(Site(late_lines=lines)) as dev, cluster(Site()) as atena02:
        yield {"dev": dev, "atena02": atena02}


async def test_changing_the_runner_location_moves_the_workload(
    sites: dict[str, Cluster], tmp_path: Path
) -> None:
    """It begins on the first cluster, is stopped there, and only then begins on the second."""
    specs = tmp_path / "specs"
    ledgers = {name: str(site.login.root / "ledger") for name, site in sites.items()}
    config = json.loads((DATA / "several.json").read_text())
    for each in config["clusters"].values():
        each["infra_config"].pop("image_name")
    await _import(config, "dev", specs, sites, ledgers)
    for name, site in sites.items():
        _finish_target(specs / f"target-{name}.yaml", site)
    project = Project(tmp_path, specs)
    try:
        project.up()
        first = sites["dev"].here(ledgers["dev"])
        project.until(first.exists, "it runs on dev", 90)
        await _import(config, "atena02", project.repository, sites, ledgers)
        for name, site in sites.items():
            _finish_target(project.repository / f"target-{name}.yaml", site)
        project.commit("Move to atena02")
        second = sites["atena02"].here(ledgers["atena02"])
        project.until(second.exists, "it runs on atena02", 90)
        assert _live(sites["dev"]) == [], "nothing is left of it on the first cluster"
        second.with_name("ledger.go").touch()
        done = ("Job/wine-on-several", "Succeeded")
        project.until(lambda: project.condition(*done)[0] == "True", "it has succeeded", 90)
        assert len(first.read_text().splitlines()) == 1
        assert len(second.read_text().splitlines()) == 1
    finally:
        project.close()


async def _import(
    config: dict[str, object],
    location: str,
    to: Path,
    sites: dict[str, Cluster],
    ledgers: dict[str, str],
) -> None:
    task = to.parent / "task.json"
    task.parent.mkdir(parents=True, exist_ok=True)
    task.write_text(json.dumps({**config, "runner_location": location}))
    script = to.parent / "train.py"
    script.write_text(_SCRIPT.format(ledger=ledgers[location]))
    flags = []
    for name, site in sites.items():
        at = site.login
        flags += ["--cluster", f"{name}={at.user}@{at.host}:{at.port}{at.root}/windlass"]
    words = [str(task), str(script), "--to", str(to), "--output", "model=model.pkl"]
    ran = await windlass("import", "mltask", *words, *flags)
    assert ran.code == 0, ran


def _finish_target(path: Path, site: Cluster) -> None:
    """What the import cannot know: the key, whom to believe, and to be quick."""
    at = site.login
    more = f"    key: file:{at.key}\n    knownHosts: {at.known_hosts}\n    sshConfig: null\n"
    more += "    grace: 1s\n    soak: 1s\n    limits: {poll: 500ms, idlePoll: 2s}\n"
    path.write_text(path.read_text() + more)


def _live(site: Cluster) -> list[list[str]]:
    return site.squeue("%i", "-t", "pending,running,completing")
