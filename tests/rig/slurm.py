"""A private Slurm cluster: real munge, slurmctld, slurmd, slurmdbd on MariaDB, and an sshd.

Nothing of it touches the system: own keys, sockets, ports and folder, and accounts that only the
cluster's processes see. As root its user is unprivileged; as an ordinary user everything is theirs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rig.apptainer.install import real
from rig.slurm_daemons import PATIENCE, Daemons, execute
from rig.slurm_site import (
    HOMES,
    HOST,
    OTHER,
    SCRATCH,
    USER,
    Person,
    Site,
)


@dataclass(frozen=True)
class Login:
    """What one needs to reach the cluster."""

    host: str
    port: int
    user: str
    key: Path
    known_hosts: Path
    root: Path
    """The user's own folder on the scratch, by its name on the cluster."""


class Cluster(Daemons):
    """A running cluster, as its user and its administrators have it."""

    # ---- what a user of the cluster has

    @property
    def login(self) -> Login:
        """How one reaches it."""
        etc = self.layout.folder / "etc"
        above = self.layout.folder / "scratch" if os.geteuid() else SCRATCH
        root = above / self.user.name
        return Login(
            HOST, self.ports.sshd, self.user.name, etc / "user_key", etc / "known_hosts", root
        )

    def here(self, path: Path | str) -> Path:
        """Where the test finds what is called ``path`` on the cluster."""
        if not os.geteuid():
            for outside, inside in ((SCRATCH, "scratch"), (HOMES, "home")):
                if Path(path).is_relative_to(outside):
                    return self.layout.folder / inside / Path(path).relative_to(outside)
        return Path(path)

    def ssh(self, *argv: str, check: bool = True, timeout: float = PATIENCE) -> str:
        """Run a command on the login node as the user, in a connection of its own; its output."""
        to = self.login
        options = [
            f"UserKnownHostsFile={to.known_hosts}",
            "StrictHostKeyChecking=yes",
            "IdentitiesOnly=yes",
            "BatchMode=yes",
        ]
        flags = [flag for option in options for flag in ("-o", option)]
        line = ["ssh", "-F", "none", "-p", str(to.port), "-i", str(to.key), *flags]
        return execute([*line, f"{to.user}@{to.host}", *argv], self.environment, check, timeout)

    def run(
        self, *argv: str, user: str = USER, check: bool = True, timeout: float = PATIENCE
    ) -> str:
        """Run a command as a user inside the cluster, without SSH."""
        person = self.accounts[user]
        become = [] if os.geteuid() else _become(person)
        environment = {**self.environment, "HOME": str(person.home), "USER": person.name}
        return execute([*self.inside(), *become, *argv], environment, check, timeout)

    @property
    def containers(self) -> Path:
        """The folder of ``apptainer`` and ``singularity``, to be put on a job's PATH."""
        return real() or self.layout.folder / "containers" / "bin"

    # ---- what an administrator does

    def squeue(self, form: str = "%i|%u|%j|%T", *more: str) -> list[list[str]]:
        """Every job of every user, as columns; array elements that wait are one row."""
        text = self.admin("squeue", "-a", "-h", "-t", "all", "-o", form, *more)
        return [line.split("|") for line in text.splitlines()]

    def hold(self, job: str) -> None:
        """Hold a job, as an administrator."""
        self.admin("scontrol", "hold", job)

    def release(self, job: str) -> None:
        """Release a held job."""
        self.admin("scontrol", "release", job)

    def requeue(self, job: str) -> None:
        """Stop a job and put it back into the queue."""
        self.admin("scontrol", "requeue", job)

    def cancel(self, *jobs: str) -> None:
        """Cancel jobs, as an administrator."""
        self.admin("scancel", *jobs)

    def node_fail(self, node: str = "n1") -> None:
        """Let a node go down with what it runs; `node_back` brings it back."""
        self.admin("scontrol", "update", f"nodename={node}", "state=down", "reason=rig")

    def node_back(self, node: str = "n1") -> None:
        """Bring a node back."""
        self.admin("scontrol", "update", f"nodename={node}", "state=resume")

    def add_foreign_jobs(self, count: int, name: str = "theirs") -> list[str]:
        """Put held jobs of somebody else into the queue, most as array elements; their ids."""
        ids, largest = [], self.site.max_array_size - 1
        script = self.layout.folder / "foreign.sh"
        script.write_text("#!/bin/sh\nsleep 600\n")
        script.chmod(0o755)
        while count > 0:
            size = min(count, largest)
            array = [f"--array=0-{size - 1}"] if size > 1 else []
            flags = ["--parsable", "--hold", f"--job-name={name}", "--output=/dev/null", *array]
            ids.append(self.run("sbatch", *flags, "--chdir=/", str(script), user=OTHER).strip())
            count -= size
        return ids

    def add_foreign_lines(self, count: int) -> list[str]:
        """Held jobs of somebody else, each with a record and a line of its own; their ids.

        An element of an array gets its own record when it alone is changed; that is several times
        faster than an sbatch for each.
        """
        ids: list[str] = []
        while len(ids) < count:
            size = min(count - len(ids), 500, self.site.max_array_size - 1)
            (master,) = self.add_foreign_jobs(size)
            own = [f"{master}_{n}" for n in range(size)] if size > 1 else [master]
            self.tell("scontrol", [f"update jobid={id_} comment=own" for id_ in own])
            ids += own
        missing = set(ids) - set(self.foreign_lines())
        assert not missing, f"{len(missing)} of {count} have no line of their own"
        return ids

    def foreign_lines(self) -> list[str]:
        """What somebody else has waiting, as the queue lists it: a line may stand for many."""
        return self._foreign()

    def foreign(self) -> int:
        """How many jobs of somebody else wait, array elements counted one by one."""
        return len(self._foreign("-r"))

    def _foreign(self, *flags: str) -> list[str]:
        whose = ["-u", self.accounts[OTHER].name, "-n", "theirs"]
        told = self.admin("squeue", "-h", "-t", "pending", "-o", "%i", *whose, *flags)
        return told.splitlines()

    def cancel_foreign(self) -> None:
        """Somebody else gives up."""
        self.admin("scancel", "--name=theirs")

    def sdiag(self) -> dict[str, int]:
        """How often each message reached the controller since it started or `sdiag_reset`."""
        text = self.admin("sdiag").partition("by message type")[2].partition("by user")[0]
        return {name: int(n) for name, n in re.findall(r"(\w+)\s+\(\s*\d+\) count:(\d+)", text)}

    def sdiag_reset(self) -> None:
        """Count from nought."""
        self.admin("sdiag", "--reset")

    def small_disk(self, name: str, size: str = "1m") -> Path:
        """A scratch folder of its own file system of that size, the user's; needs root."""
        folder = self.layout.folder / name
        folder.mkdir()
        owner = f"size={size},uid={self.user.uid},gid={self.user.gid},mode=0700"
        self.admin("mount", "-t", "tmpfs", "-o", owner, "rig", str(folder))
        return folder


@contextlib.contextmanager
def cluster(site: Site = Site()) -> Iterator[Cluster]:  # noqa: B008 - immutable
    """A cluster for the time of the block. Its folder is below /tmp and goes with it."""
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="wl-slurm-", dir="/tmp")).resolve()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        made = Cluster(folder, site)
        stack.enter_context(made.nursery)
        made.open()
        yield made


def _become(person: Person) -> list[str]:
    return ["setpriv", f"--reuid={person.uid}", f"--regid={person.gid}", "--clear-groups", "--"]


if __name__ == "__main__":  # a cluster to play with: python -m rig.slurm [accounting]
    with cluster(Site(accounting="accounting" in sys.argv)) as running:
        to = running.login
        sys.stdout.write(
            f"ssh -p {to.port} -i {to.key} -o UserKnownHostsFile={to.known_hosts}"
            f" {to.user}@{to.host}\n{to.root}\nCtrl-C stops it.\n"
        )
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
