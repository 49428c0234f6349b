"""A user's project whose Jobs run on the private cluster, and the books of what ran there."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path

import yaml

from rig.project import Daemon, Project
from rig.slurm import Cluster

LARGE = 24 << 20
"""Bytes of a file that needs several pieces either way."""
PATIENCE = 180.0
_numbers = count()

# A line in the ledger for each start: nobody of ours can take it back.
_SCRIPT = """\
#!/bin/sh
printf '%s %s\\n' "$WINDLASS_RUN${WINDLASS_ARRAY_INDEX:+.$WINDLASS_ARRAY_INDEX}" "$SLURM_JOB_ID" \\
    >> "$1"
until [ -e "$1.go" ]; do sleep 0.1; done
echo done > out.txt
[ "$WINDLASS_INPUT_BIG" = "" ] || { cat "$WINDLASS_INPUT_BIG"; echo; } > big.bin
"""
_GATE = """\
#!/bin/bash
gate={gates}/{name}
step() {{ [ ! -e "$gate.$1" ] || {{ echo $PPID >> "$gate.$1.met"; while [ -e "$gate.$1" ]; do
    sleep 0.02; done; }}; }}
step before
out=$(/usr/bin/{name} "$@"); status=$?
step after
[ -z "$out" ] || printf '%s\\n' "$out"
exit "$status"
"""


@dataclass
class Story:
    """One project and one Target: ``jobs`` Jobs, one with a large file, and an array of four."""

    cluster: Cluster
    folder: Path
    jobs: int = 3
    large: bool = True
    params: dict[str, object] = field(default_factory=dict)
    """More of the Target's, or others."""
    disk: Path | None = None
    """Where the root lies, if not on the user's scratch."""

    def __post_init__(self) -> None:
        name = f"story-{next(_numbers)}-{self.folder.name[-8:]}"
        self.root = (self.disk or self.cluster.login.root) / name
        self.ledger = self.cluster.here(self.cluster.login.root / f"{name}.ledger")
        self._far_ledger = str(self.cluster.login.root / f"{name}.ledger")
        self.gates = self.cluster.layout.folder / f"gates-{name}"
        self._make_gates()
        specs = self.folder / "specs"
        specs.mkdir(parents=True)
        self._declare(specs)
        self.project = Project(self.folder, specs)
        self.strangers = self.cluster.add_foreign_lines(200)
        self.twins = self._twins()

    # ---- what is declared

    def names(self) -> list[str]:
        """Every Job."""
        return [f"job-{n}" for n in range(self.jobs)] + ["many"]

    def _declare(self, specs: Path) -> None:
        login = self.cluster.login
        params: dict[str, object] = {
            "host": login.host,
            "port": login.port,
            "user": login.user,
            "key": f"file:{login.key}",
            "knownHosts": str(login.known_hosts),
            "sshConfig": None,
            "remoteRoot": str(self.root),
            "slurmBin": str(self.gates),
            "grace": "1s",
            "soak": "1s",
            "limits": {"poll": "500ms", "idlePoll": "2s"},
            **self.params,
        }
        self._write(specs / "hpc.yaml", "Target", "hpc", {"adapter": "slurm", "params": params})
        script = specs / "run.sh"
        script.write_text(_SCRIPT)
        script.chmod(0o755)
        for name in self.names():
            self._write(specs / f"{name}.yaml", "Job", name, self._job(name))
        if self.large:
            (specs / "big.bin").write_bytes(os.urandom(LARGE))

    def _job(self, name: str) -> dict[str, object]:
        command = ["sh", "run.sh", self._far_ledger]
        spec: dict[str, object] = {
            "command": command,
            "files": ["run.sh"],
            "env": {"WHO": name},
            "target": "hpc",
            "options": {"time": "5m"},
        }
        if name == "many":
            return {**spec, "array": {"indices": "0-3"}}
        outputs = {"out": "out.txt"}
        if name == "job-0" and self.large:
            outputs["big"] = "big.bin"
            spec["inputs"] = {"big": {"file": "big.bin"}}
        return {**spec, "outputs": outputs}

    @staticmethod
    def _write(path: Path, kind: str, name: str, spec: Mapping[str, object]) -> None:
        document = {"apiVersion": "windlass/v1", "kind": kind, "metadata": {"name": name}}
        path.write_text(yaml.safe_dump({**document, "spec": spec}, sort_keys=False))

    def remove(self, *names: str) -> None:
        """Somebody deletes the specs of some Jobs."""
        for name in names:
            (self.project.repository / f"{name}.yaml").unlink()
        self.project.commit("Remove " + ", ".join(names))

    # ---- daemons

    def mortal(self, point: str) -> Daemon:
        """A daemon that dies at a point of its own."""
        path = f"PYTHONPATH={Path(__file__).parents[1]}"
        program = (sys.executable, "-m", "rig.mortal", point)
        return self.project.start("env", path, *program, "up", ".")

    def go(self) -> None:
        """Let the programs end."""
        self.ledger.with_name(f"{self.ledger.name}.go").touch()

    def until(self, told: Callable[[], object], what: str) -> None:
        """Wait for something, with what the daemon said if it does not come."""
        self.project.until(told, what, PATIENCE)

    def settle(self, *but: str) -> None:
        """Wait until every Job has succeeded."""
        for name in self.names():
            if name not in but:
                self.until(partial(self._succeeded, name), f"Job/{name} has succeeded")

    def _succeeded(self, name: str) -> bool:
        return self.project.condition(f"Job/{name}", "Succeeded")[0] == "True"

    # ---- gates: the moments around one of Slurm's commands

    def _make_gates(self) -> None:
        self.gates.mkdir()
        self.gates.chmod(0o777)
        for name in ("sbatch", "scancel", "squeue", "sacct", "scontrol"):
            program = self.gates / name
            program.write_text(_GATE.format(gates=self.gates, name=name))
            program.chmod(0o755)

    def shut(self, gate: str) -> None:
        """``sbatch.before``: from now on that command stops there."""
        (self.gates / gate).touch()

    def met(self, gate: str) -> list[int]:
        """The programs on the login node that have stopped there."""
        with suppress(FileNotFoundError):
            return [int(pid) for pid in (self.gates / f"{gate}.met").read_text().split()]
        return []

    def open(self, gate: str) -> None:
        """Let what stopped there go on, and what comes after it."""
        (self.gates / gate).unlink(missing_ok=True)

    def kill_met(self, gate: str) -> None:
        """The login node is gone with the programs that stopped there."""
        for pid in self.met(gate):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.open(gate)

    # ---- what really happened

    def starts(self) -> Counter[str]:
        """How often each run, or element of one, was started."""
        if not self.ledger.exists():
            return Counter()
        return Counter(line.split()[0] for line in self.ledger.read_text().splitlines())

    def faults(self, *gone: str, attempts: bool = False) -> list[str]:
        """Everything that is doubled, lost or harmed; empty if all is well.

        Args:
            gone: Jobs that are not declared any more.
            attempts: Whether the fault may have cost a run, so that there is a second attempt.
        """
        starts = self.starts()
        found = [f"{run} was started {n} times" for run, n in starts.items() if n != 1]
        wanted = self.jobs + 4 - sum(4 if name == "many" else 1 for name in gone)
        if not attempts and len(starts) != wanted and not gone:
            found.append(f"{len(starts)} runs were started, not {wanted}: {sorted(starts)}")
        if len(starts) < wanted:
            found.append(f"only {len(starts)} runs were started of {wanted}")
        waiting = {row[0] for row in self.cluster.squeue("%i|%T") if row[1] == "PENDING"}
        harmed = {*self.strangers, *self.twins} - waiting
        found += [f"job {job} of somebody else is gone" for job in sorted(harmed)]
        return found + [f"job {row[0]} is left" for row in self.left()]

    def left(self) -> list[list[str]]:
        """Jobs of ours that still wait or run."""
        rows = self.cluster.squeue("%i|%j|%T|%Z")
        return [
            row
            for row in rows
            if row[1].startswith("wl-")
            and row[3].startswith(str(self.root))
            and row[2] in ("PENDING", "RUNNING", "COMPLETING")
        ]

    def _twins(self) -> list[str]:
        """Jobs of the same account with names like ours, which somebody else's daemon made."""
        flags = ["--parsable", "--hold", "--output=/dev/null", "--chdir=/"]
        script = str(self.cluster.layout.folder / "foreign.sh")
        names = ["wl-aaaaaaaaaaaaaaaaaaaaaaaaaa", "wl-", "a b|c wl-x"]
        run = self.cluster.run
        return [run("sbatch", *flags, f"--job-name={name}", script).strip() for name in names]

    def quiet(self, seconds: float) -> None:
        """For that long nothing is started or submitted."""
        before = (self.starts(), sorted(self.cluster.squeue("%i|%j")))
        time.sleep(seconds)
        assert (self.starts(), sorted(self.cluster.squeue("%i|%j"))) == before

    def close(self) -> None:
        """End the daemons and what waits in the queue."""
        self.project.close()
        self.cluster.admin("scancel", "--user", self.cluster.user.name, check=False)
        self.cluster.cancel_foreign()
