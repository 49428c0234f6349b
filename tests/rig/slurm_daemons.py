"""The daemons of a private cluster: made, started, frozen, killed and started again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rig.apptainer.install import double
from rig.nursery import Nursery
from rig.project import free_ports
from rig.slurm_site import (
    HOMES,
    HOST,
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


class Daemons:
    """``munged``, ``slurmctld``, ``slurmd1`` to ``slurmdN``, ``sshd``, and with accounting
    ``mariadbd`` and ``slurmdbd``.
    """

    def __init__(self, folder: Path, site: Site) -> None:
        self.site = site
        self.layout = Layout(folder)
        self.accounts = people()
        sshd, ctld, dbd, maria, *slurmd = free_ports(4 + site.nodes)
        self.ports = Ports(sshd, ctld, dbd, maria, tuple(slurmd))
        self._prepare()
        self.nursery = Nursery(self._enter(), self.environment)
        self._commands: dict[str, list[str]] = {}

    @property
    def user(self) -> Person:
        """Who submits."""
        return self.accounts[USER]

    @property
    def environment(self) -> dict[str, str]:
        """What Slurm's commands need."""
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "SLURM_CONF": str(self.layout.slurm_conf),
            "LC_ALL": "C.UTF-8",
        }

    def admin(self, *argv: str, check: bool = True, timeout: float = PATIENCE) -> str:
        """Run a command as SlurmUser; its output."""
        return execute([*self.inside(), *argv], self.environment, check, timeout)

    def tell(self, program: str, lines: Sequence[str]) -> None:
        """Give a program of Slurm's many commands at once, as SlurmUser."""
        argv = [*self.inside(), program]
        execute(argv, self.environment, True, PATIENCE, "".join(f"{line}\n" for line in lines))

    def await_state(
        self, told: Callable[[], object], what: str, patience: float = PATIENCE
    ) -> None:
        """Wait until something holds."""
        until = time.monotonic() + patience
        while not told():
            if time.monotonic() > until:
                raise AssertionError(f"after {patience:.0f} s the cluster still has not: {what}")
            time.sleep(0.05)

    # ---- faults

    def pause(self, daemon: str) -> None:
        """Freeze a daemon: it holds its sockets and answers nothing."""
        self.nursery.send(daemon, signal.SIGSTOP)

    def resume(self, daemon: str) -> None:
        """Let a frozen daemon go on."""
        self.nursery.send(daemon, signal.SIGCONT)

    def kill(self, daemon: str) -> None:
        """End a daemon with SIGKILL. Sessions of sshd and jobs of slurmd go on without it."""
        self.nursery.stop(daemon, signal.SIGKILL)

    def stop(self, daemon: str) -> None:
        """End a daemon in order."""
        self.nursery.stop(daemon)

    def start(self, daemon: str) -> None:
        """Start a daemon that has ended, and wait until it serves."""
        self.nursery.start(daemon, self._commands[daemon], self.layout.log(daemon))
        self._await_daemon(daemon)

    def restart(self, daemon: str) -> None:
        """End a daemon in order, and start it again."""
        self.stop(daemon)
        self.start(daemon)

    def drop_sessions(self) -> None:
        """Kill every process that serves an SSH connection, as a login node's reboot does."""
        for pid in self.nursery.offspring("sshd"):
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                if b"sshd" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)

    def authentications(self) -> int:
        """How many connections were let in."""
        return self.layout.log("sshd").read_text(errors="replace").count("Accepted publickey")

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

    def inside(self) -> list[str]:
        return [] if os.geteuid() else ["nsenter", "-t", str(self.nursery.pid), "-m", "--"]

    def open(self) -> None:
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
            if not self.nursery.alive(daemon):
                said = self.layout.log(daemon).read_text(errors="replace")
                raise AssertionError(f"{daemon} ended at its start:\n{said[-2000:]}")
            check = checks.get(daemon)
            if check is None:
                return True
            answer = _try([*self.inside(), *check], self.environment)
            return answer is not None and "DOWN" not in answer

        self.await_state(serves, f"started {daemon}")

    def _idle(self) -> bool:
        states = self.admin("sinfo", "-h", "-N", "-p", "cpu", "-o", "%N %t", check=False)
        nodes = dict(line.split() for line in states.splitlines())
        return len(nodes) == self.site.nodes and set(nodes.values()) == {"idle"}


def _try(argv: Sequence[str], environment: dict[str, str]) -> str | None:
    done = subprocess.run(
        argv, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return None if done.returncode else done.stdout + done.stderr


def execute(
    argv: Sequence[str],
    environment: dict[str, str],
    check: bool,
    timeout: float,
    words: str = "",
) -> str:
    done = subprocess.run(
        argv,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
        cwd="/",
        input=words,
    )
    if check and done.returncode:
        raise AssertionError(f"{list(argv)} gave {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout
