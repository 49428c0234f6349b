"""How late the real daemon sees an end, with very many runs that only wait."""

from __future__ import annotations

import os
import re
import time
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import yaml

from bench.slurm.spent import cpu_of
from rig.project import Project
from rig.slurm import Cluster

POLL = 2.0
_SPREAD = 20
"""Seconds over which the ends are spread."""
_SCRIPT = """\
: < {go}
sleep $(({n} % {spread}))
echo "$(date +%s.%N) $SLURM_JOB_ID" > {ends}/{n}
"""
"""Waits without costing anything: on a pipe that nobody has opened yet."""
_DONE = re.compile(r"\[(\S+)\] _job_complete: JobId=(?:\S+\((\d+)\)|(\d+)) done")


class Lateness(NamedTuple):
    """Seconds until the condition Succeeded of a Job."""

    of_program: float
    """From the end of its program."""
    of_slurm: float
    """From the moment in which Slurm's controller wrote down that the job is over."""


def lateness(
    site: Cluster, controller_log: Path, folder: Path, tracked: int, ending: int, burst: int = 0
) -> list[Lateness]:
    """How late the daemon is with each of ``ending`` runs, which end over twenty seconds.

    The others of the ``tracked`` runs wait in a partition that is closed. When the first one ends,
    ``burst`` more are committed, each to be submitted alone.
    """
    root = site.login.root / folder.name
    go, ends = site.login.root / f"{folder.name}.go", site.login.root / f"{folder.name}.ends"
    site.here(ends).mkdir()
    site.here(ends).chmod(0o777)
    os.mkfifo(site.here(go))
    site.here(go).chmod(0o666)
    specs = folder / "specs"
    specs.mkdir(parents=True)
    runs = [_run(n, go, ends, waits=n >= ending) for n in range(tracked)]
    (specs / "all.yaml").write_text("---\n".join([_target(site, root), *runs]))
    project = Project(folder, specs)
    daemon = project.up()
    try:
        began = time.monotonic()
        project.until(lambda: len(site.squeue("%i", "-r")) >= tracked, "all are submitted", 900)
        print(f"       {tracked} Jobs submitted in {time.monotonic() - began:.0f} s", flush=True)
        time.sleep(15)  # the passes that follow a submission
        before = cpu_of(daemon.process.pid)
        time.sleep(20)
        spent = (cpu_of(daemon.process.pid) - before) / 20
        print(f"       CPU of the daemon while nothing happens: {100 * spent:.1f} %", flush=True)
        more = [_run(n, go, ends, waits=True, alone=True) for n in range(tracked, tracked + burst)]
        with site.here(go).open("w"):
            if more:
                (project.repository / "more.yaml").write_text("---\n".join(more))
                project.commit("Declare more")
            project.until(lambda: len(list(site.here(ends).iterdir())) == ending, "all end", 300)
        seen = [_seen(project, f"Job/job-{n}") for n in range(ending)]
        over = _over(controller_log)
        late = []
        for n, at in enumerate(seen):
            ended, job = (site.here(ends) / str(n)).read_text().split()
            late.append(Lateness(at - float(ended), at - over[job]))
        return late
    finally:
        daemon.kill()
        project.close()


def _seen(project: Project, name: str) -> float:
    """When its status said that it has ended."""
    project.until(partial(project.ready, name), f"{name} succeeded", 120)
    found = project.status(name).condition("Succeeded")
    assert found is not None
    return found.last_transition_time.timestamp()


def _over(log: Path) -> dict[str, float]:
    """When the controller wrote down that a job is over, by its own id."""
    found = {}
    for at, element, job in _DONE.findall(log.read_text()):
        # Local time without a zone, as Slurm writes it.
        found[element or job] = datetime.fromisoformat(at).timestamp()
    return found


def _target(site: Cluster, root: Path) -> str:
    to = site.login
    params = {
        "host": to.host,
        "port": to.port,
        "user": to.user,
        "key": f"file:{to.key}",
        "knownHosts": str(to.known_hosts),
        "sshConfig": None,
        "remoteRoot": str(root),
        "limits": {"poll": f"{POLL:g}s", "idlePoll": f"{POLL:g}s", "batch": 500},
    }
    return _document("Target", "hpc", {"adapter": "slurm", "params": params})


def _run(n: int, go: Path, ends: Path, *, waits: bool, alone: bool = False) -> str:
    text = "true" if waits else _SCRIPT.format(go=go, n=n, ends=ends, spread=_SPREAD)
    partition = "closed" if waits else "cpu"
    options = {"time": "10m", "partition": partition, "coalesce": not alone}
    spec = {"command": ["sh", "-c", text], "target": "hpc", "options": options}
    return _document("Job", f"job-{n}", spec)


def _document(kind: str, name: str, spec: object) -> str:
    head = {"apiVersion": "windlass/v1", "kind": kind, "metadata": {"name": name}}
    return yaml.safe_dump({**head, "spec": spec}, sort_keys=False)
