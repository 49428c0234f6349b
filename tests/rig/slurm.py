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
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rig.apptainer.install import double, real
from rig.nursery import Nursery
from rig.project import free_ports
from rig.slurm_site import (
    HOMES,
    HOST,
    OTHER,
    SCRATCH,
    USER,
    Layout,
    Person,
    Ports,
    Site,
    password_files,
    people,
    slurm_conf,
    slurmdbd_conf,
    sshd_config,
)

PATIENCE = 60.0
"""Seconds that the cluster has to reach a state before a test fails."""


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


class Cluster:
    """A running cluster. The daemons are ``munged``, ``slurmctld``, ``slurmd1`` to ``slurmdN``,
    ``sshd``, and with accounting ``mariadbd`` and ``slurmdbd``.
    """

    def __init__(self, folder: Path, site: Site) -> None:
        self.site = site
        self.layout = Layout(folder)
        self.accounts = people()
        sshd, ctld, dbd, maria, *slurmd = free_ports(4 + site.nodes)
        self.ports = Ports(sshd, ctld, dbd, maria, tuple(slurmd))
        self._prepare()
        self._nursery = Nursery(self._enter(), self.environment)
        self._commands: dict[str, list[str]] = {}

    # ---- what a user of the cluster has

    @property
    def user(self) -> Person:
        """Who submits."""
        return self.accounts[USER]

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

    @property
    def environment(self) -> dict[str, str]:
        """What Slurm's commands need."""
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "SLURM_CONF": str(self.layout.slurm_conf),
            "LC_ALL": "C.UTF-8",
        }

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
        return _run([*line, f"{to.user}@{to.host}", *argv], self.environment, check, timeout)

    def run(
        self, *argv: str, user: str = USER, check: bool = True, timeout: float = PATIENCE
    ) -> str:
        """Run a command as a user inside the cluster, without SSH."""
        person = self.accounts[user]
        become = [] if os.geteuid() else _become(person)
        environment = {**self.environment, "HOME": str(person.home), "USER": person.name}
        return _run([*self._inside(), *become, *argv], environment, check, timeout)

    @property
    def containers(self) -> Path:
        """The folder of ``apptainer`` and ``singularity``, to be put on a job's PATH."""
        return real() or self.layout.folder / "containers" / "bin"

    # ---- what an administrator does

    def admin(self, *argv: str, check: bool = True, timeout: float = PATIENCE) -> str:
        """Run a command as SlurmUser; its output."""
        return _run([*self._inside(), *argv], self.environment, check, timeout)

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

    def foreign(self) -> int:
        """How many jobs of somebody else wait, array elements counted one by one."""
        name = self.accounts[OTHER].name
        mine = ["squeue", "-h", "-r", "-t", "pending", "-u", name, "-n", "theirs", "-o", "%i"]
        return len(self.admin(*mine).splitlines())

    def sdiag(self) -> dict[str, int]:
        """How often each message reached the controller since it started or `sdiag_reset`."""
        text = self.admin("sdiag").partition("by message type")[2].partition("by user")[0]
        return {name: int(n) for name, n in re.findall(r"(\w+)\s+\(\s*\d+\) count:(\d+)", text)}

    def sdiag_reset(self) -> None:
        """Count from nought."""
        self.admin("sdiag", "--reset")

    # ---- faults

    def pause(self, daemon: str) -> None:
        """Freeze a daemon: it holds its sockets and answers nothing."""
        self._nursery.send(daemon, signal.SIGSTOP)

    def resume(self, daemon: str) -> None:
        """Let a frozen daemon go on."""
        self._nursery.send(daemon, signal.SIGCONT)

    def kill(self, daemon: str) -> None:
        """End a daemon with SIGKILL. Sessions of sshd and jobs of slurmd go on without it."""
        self._nursery.stop(daemon, signal.SIGKILL)

    def stop(self, daemon: str) -> None:
        """End a daemon in order."""
        self._nursery.stop(daemon)

    def start(self, daemon: str) -> None:
        """Start a daemon that has ended, and wait until it serves."""
        self._nursery.start(daemon, self._commands[daemon], self.layout.log(daemon))
        self._await_daemon(daemon)

    def restart(self, daemon: str) -> None:
        """End a daemon in order, and start it again."""
        self.stop(daemon)
        self.start(daemon)

    def drop_sessions(self) -> None:
        """Kill every process that serves an SSH connection, as a login node's reboot does."""
        for pid in self._nursery.offspring("sshd"):
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                if b"sshd" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)

    def authentications(self) -> int:
        """How many connections were let in."""
        return self.layout.log("sshd").read_text(errors="replace").count("Accepted publickey")

    def small_disk(self, name: str, size: str = "1m") -> Path:
        """A scratch folder of its own file system of that size, the user's; needs root."""
        folder = self.layout.folder / name
        folder.mkdir()
        owner = f"size={size},uid={self.user.uid},gid={self.user.gid},mode=0700"
        self.admin("mount", "-t", "tmpfs", "-o", owner, "rig", str(folder))
        return folder

    def await_state(
        self, told: Callable[[], object], what: str, patience: float = PATIENCE
    ) -> None:
        """Wait until something holds."""
        until = time.monotonic() + patience
        while not told():
            if time.monotonic() > until:
                raise AssertionError(f"after {patience:.0f} s the cluster still has not: {what}")
            time.sleep(0.05)

    # ---- how it is made

    def _prepare(self) -> None:
        folder, site = self.layout.folder, self.site
        folder.chmod(0o755)
        for name in ("etc", "log", "run", "state", "spool", "munge", "home", "scratch"):
            (folder / name).mkdir(mode=0o755)
        for person in {person.name: person for person in self.accounts.values()}.values():
            for above in ("home", "scratch"):
                (folder / above / person.name).mkdir(mode=0o700)
                os.chown(folder / above / person.name, person.uid, person.gid)
        if not os.geteuid():
            (folder / "home" / self.user.name / ".profile").write_text("# of a login shell\n")
        (folder / "containers").mkdir()
        double(folder / "containers")
        etc = folder / "etc"
        self.layout.slurm_conf.write_text(slurm_conf(site, self.layout, self.ports))
        # The cgroup plugin would look for a hierarchy that a container or a plain machine lacks.
        (etc / "cgroup.conf").write_text("CgroupAutomount=no\nConstrainCores=no\n")
        # Devices that stand for GPUs: Slurm only looks whether they are there.
        for number in range(4):
            (etc / f"gpu{number}").symlink_to(os.devnull)
        (etc / "gres.conf").write_text(f"AutoDetect=off\nName=gpu File={etc}/gpu[0-3]\n")
        for key in ("host_key", "user_key"):
            flags = ["-q", "-t", "ed25519", "-N", "", "-C", "rig", "-f", str(etc / key)]
            subprocess.run(["ssh-keygen", *flags], check=True, timeout=PATIENCE)
        shutil.copy(etc / "user_key.pub", etc / "authorized_keys")
        (etc / "authorized_keys").chmod(0o644)
        public = (etc / "host_key.pub").read_text()
        (etc / "known_hosts").write_text(f"[{HOST}]:{self.ports.sshd} {public}")
        config = sshd_config(site, self.layout, self.ports.sshd, self.user)
        (etc / "sshd_config").write_text(config)
        (folder / "munge" / "key").write_bytes(os.urandom(128))
        (folder / "munge" / "key").chmod(0o400)

    def _enter(self) -> list[str]:
        """As root: into a mount namespace where the accounts, homes and the scratch exist.

        Neither is below /tmp there, because a container sees the host's /tmp.
        """
        if os.geteuid():
            return []
        Path("/run/sshd").mkdir(exist_ok=True)
        folder = self.layout.folder
        binds = password_files(folder, self.accounts)
        binds |= {str(HOMES): folder / "home", str(SCRATCH): folder / "scratch"}
        script = "".join(f"mount --bind {ours} {system}\n" for system, ours in binds.items())
        return ["unshare", "-m", "sh", "-ec", script + 'exec "$@"', "sh"]

    def _inside(self) -> list[str]:
        return [] if os.geteuid() else ["nsenter", "-t", str(self._nursery.pid), "-m", "--"]

    def _open(self) -> None:
        layout = self.layout
        munge = layout.folder / "munge"
        self._launch(
            "munged",
            *("munged", "-F", f"--key-file={munge}/key", f"--socket={layout.munge_socket}"),
            *(f"--pid-file={munge}/pid", f"--seed-file={munge}/seed", "--num-threads=4"),
            f"--log-file={layout.log('munge')}",
        )
        self._launch("sshd", "/usr/sbin/sshd", "-D", "-e", "-f", f"{layout.folder}/etc/sshd_config")
        if self.site.accounting:
            self._open_accounting()
        self._launch("slurmctld", "slurmctld", "-D")
        for number in range(1, self.site.nodes + 1):
            self._launch(f"slurmd{number}", "slurmd", "-D", "-N", f"n{number}")
        self.await_state(self._idle, "all of its nodes idle")

    def _open_accounting(self) -> None:
        data, layout = self.layout.folder / "mariadb", self.layout
        as_user = f"--user={'root' if not os.geteuid() else self.user.name}"
        fast = ["--innodb-flush-log-at-trx-commit=0", "--innodb-lock-wait-timeout=900"]
        self.admin(
            *("mariadb-install-db", "--no-defaults", f"--datadir={data}", as_user),
            *("--auth-root-authentication-method=normal", "--skip-test-db"),
        )
        self._launch(
            "mariadbd",
            *("mariadbd", "--no-defaults", f"--datadir={data}", as_user),
            *(f"--socket={layout.folder}/run/db", f"--port={self.ports.mariadb}"),
            *(f"--bind-address={HOST}", f"--pid-file={layout.folder}/run/db.pid", *fast),
        )
        grant = "create user slurm@'127.0.0.1' identified by 'slurm'; create database slurm_acct; "
        self._sql(grant + "grant all on slurm_acct.* to slurm@'127.0.0.1'")
        conf = layout.folder / "etc" / "slurmdbd.conf"
        conf.write_text(slurmdbd_conf(layout, self.ports))
        conf.chmod(0o600)
        self._launch("slurmdbd", "slurmdbd", "-D")
        add = ["sacctmgr", "--immediate", "add"]
        self.admin(*add, "cluster", "rig")
        for account in ("physics", "chemistry"):
            self.admin(*add, "account", account, "cluster=rig")
            for name in sorted({person.name for person in self.accounts.values()}):
                self.admin(*add, "user", name, f"account={account}", "cluster=rig")
        for name in sorted({person.name for person in self.accounts.values()}):
            change = ["where", f"name={name}", "set", "defaultaccount=physics"]
            self.admin("sacctmgr", "--immediate", "modify", "user", *change)

    def _sql(self, text: str) -> None:
        to = f"--socket={self.layout.folder}/run/db"
        self.admin("mariadb", "--no-defaults", to, "--user=root", "-e", text)

    def _launch(self, name: str, *argv: str) -> None:
        self._commands[name] = list(argv)
        self.start(name)

    def _await_daemon(self, daemon: str) -> None:
        checks: dict[str, list[str]] = {
            "munged": ["munge", "-n", f"--socket={self.layout.munge_socket}"],
            "sshd": ["ssh-keyscan", "-T", "2", "-p", str(self.ports.sshd), HOST],
            "mariadbd": [
                "mariadb-admin",
                "--no-defaults",
                f"--socket={self.layout.folder}/run/db",
                "--user=root",
                "ping",
            ],
            "slurmdbd": ["sacctmgr", "-n", "list", "cluster"],
            "slurmctld": ["scontrol", "ping"],
        }

        def serves() -> bool:
            if not self._nursery.alive(daemon):
                said = self.layout.log(daemon).read_text(errors="replace")
                raise AssertionError(f"{daemon} ended at its start:\n{said[-2000:]}")
            check = checks.get(daemon)
            if check is None:
                return True
            answer = _try([*self._inside(), *check], self.environment)
            return answer is not None and "DOWN" not in answer

        self.await_state(serves, f"started {daemon}")

    def _idle(self) -> bool:
        states = self.admin("sinfo", "-h", "-N", "-p", "cpu", "-o", "%N %t", check=False)
        nodes = dict(line.split() for line in states.splitlines())
        return len(nodes) == self.site.nodes and set(nodes.values()) == {"idle"}


@contextlib.contextmanager
def cluster(site: Site = Site()) -> Iterator[Cluster]:  # noqa: B008 - immutable
    """A cluster for the time of the block. Its folder is below /tmp and goes with it."""
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="wl-slurm-", dir="/tmp")).resolve()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        made = Cluster(folder, site)
        stack.enter_context(made._nursery)
        made._open()
        yield made


def _become(person: Person) -> list[str]:
    return ["setpriv", f"--reuid={person.uid}", f"--regid={person.gid}", "--clear-groups", "--"]


def _try(argv: Sequence[str], environment: dict[str, str]) -> str | None:
    done = subprocess.run(
        argv, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return None if done.returncode else done.stdout + done.stderr


def _run(argv: Sequence[str], environment: dict[str, str], check: bool, timeout: float) -> str:
    done = subprocess.run(
        argv,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
        cwd="/",
        stdin=subprocess.DEVNULL,
    )
    if check and done.returncode:
        raise AssertionError(f"{list(argv)} gave {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


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
