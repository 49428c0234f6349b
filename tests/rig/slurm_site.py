"""What a private cluster's machines, people and settings are, and the files that say so."""

from __future__ import annotations

import os
import pwd
import socket
from dataclasses import dataclass, field
from pathlib import Path

USER, OTHER = "ada", "bob"
"""Who submits, and whose jobs nobody else may harm; when the tests run as root."""
HOST = "127.0.0.1"
HOMES, SCRATCH = Path("/home"), Path("/srv")
"""Where root's cluster has them."""


@dataclass(frozen=True)
class Person:
    """An account of the cluster."""

    name: str
    uid: int
    gid: int
    home: Path


@dataclass(frozen=True)
class Site:
    """How the administrators have set the cluster up. Times are in seconds."""

    accounting: bool = False
    """With slurmdbd on a MariaDB of its own; accounts ``physics`` (default) and ``chemistry``."""
    nodes: int = 2
    cpus: int = 64
    """Of each node; they need not exist."""
    max_sessions: int = 10
    """Of one SSH connection, as ``MaxSessions`` of sshd_config."""
    min_job_age: int = 300
    """After which a finished job leaves the controller's memory."""
    max_array_size: int = 1001
    message_timeout: int = 10
    """How long Slurm's commands wait for a controller that does not answer."""
    limits: bool = False
    """Whether accounts, QOS and limits of the accounting are enforced."""
    lines: tuple[str, ...] = ()
    """More of slurm.conf, such as ``SlurmctldParameters=...``."""


@dataclass(frozen=True)
class Ports:
    """Of the loopback interface."""

    sshd: int
    slurmctld: int
    slurmdbd: int
    mariadb: int
    slurmd: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """Where a cluster's files are, all below one short folder: Unix sockets have short names."""

    folder: Path
    munge_socket: Path = field(init=False)
    slurm_conf: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "munge_socket", self.folder / "munge" / "socket")
        object.__setattr__(self, "slurm_conf", self.folder / "etc" / "slurm.conf")

    def log(self, name: str) -> Path:
        """What a daemon said."""
        return self.folder / "log" / f"{name}.log"


def people() -> dict[str, Person]:
    """The accounts: of their own for root's cluster, else only the one who runs the tests."""
    if os.geteuid():
        me = pwd.getpwuid(os.geteuid())
        mine = Person(me.pw_name, me.pw_uid, me.pw_gid, Path(me.pw_dir))
        return {USER: mine, OTHER: mine}
    return {
        name: Person(name, uid, uid, HOMES / name) for name, uid in ((USER, 28001), (OTHER, 28002))
    }


def password_files(folder: Path, accounts: dict[str, Person]) -> dict[str, Path]:
    """System file -> a copy that also knows the accounts."""
    added = {
        "passwd": [f"{p.name}:x:{p.uid}:{p.gid}::{p.home}:/bin/bash" for p in accounts.values()],
        "group": [f"{p.name}:x:{p.gid}:" for p in accounts.values()],
        # No password, and not locked: sshd lets nobody into a locked account.
        "shadow": [f"{p.name}:*:19000:0:99999:7:::" for p in accounts.values()],
    }
    made = {}
    for name, lines in added.items():
        system = Path("/etc") / name
        text = system.read_text().rstrip("\n")
        made[str(system)] = folder / "etc" / name
        made[str(system)].write_text("\n".join([text, *lines, ""]))
        made[str(system)].chmod(0o600 if name == "shadow" else 0o644)
    return made


def slurm_conf(site: Site, layout: Layout, ports: Ports) -> str:
    """The text of slurm.conf."""
    admin = pwd.getpwuid(os.geteuid()).pw_name
    here = socket.gethostname().split(".")[0]
    lines = [
        "ClusterName=rig",
        f"SlurmctldHost={here}({HOST})",
        f"SlurmctldPort={ports.slurmctld}",
        f"SlurmUser={admin}",
        f"SlurmdUser={admin}",
        "AuthType=auth/munge",
        f"AuthInfo=socket={layout.munge_socket}",
        "CredType=cred/munge",
        f"StateSaveLocation={layout.folder}/state",
        f"SlurmdSpoolDir={layout.folder}/spool/%n",
        f"SlurmctldPidFile={layout.folder}/run/slurmctld.pid",
        f"SlurmdPidFile={layout.folder}/run/%n.pid",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_CPU_Memory",
        "DefMemPerCPU=100",
        "SlurmdParameters=config_overrides",
        "SwitchType=switch/none",
        "MpiDefault=none",
        "MailProg=/bin/true",
        "ReturnToService=2",
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "KillWait=5",
        "MaxJobCount=30000",
        f"MaxArraySize={site.max_array_size}",
        f"MinJobAge={site.min_job_age}",
        f"MessageTimeout={site.message_timeout}",
        "SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000,bf_interval=5",
        "JobAcctGatherType=jobacct_gather/linux",
        "JobAcctGatherFrequency=task=2",
        "JobCompType=jobcomp/none",
        "GresTypes=gpu",
        *_accounting(site, layout, ports),
        *site.lines,
    ]
    for number, port in enumerate(ports.slurmd, 1):
        lines.append(
            f"NodeName=n{number} NodeHostname={here} NodeAddr={HOST} Port={port} CPUs={site.cpus}"
            f" RealMemory=64000 Gres=gpu:4 State=UNKNOWN"
        )
    every = f"n[1-{len(ports.slurmd)}]"
    lines += [
        f"PartitionName=cpu Nodes={every} Default=YES MaxTime=7-0 PriorityTier=10 PreemptMode=off",
        f"PartitionName=short Nodes={every} MaxTime=5 PriorityTier=10 PreemptMode=off",
        f"PartitionName=scavenge Nodes={every} MaxTime=7-0 PriorityTier=1 PreemptMode=requeue",
        f"PartitionName=closed Nodes={every} State=DOWN",
    ]
    return "\n".join([*lines, ""])


def _accounting(site: Site, layout: Layout, ports: Ports) -> list[str]:
    if not site.accounting:
        return ["AccountingStorageType=accounting_storage/none"]
    return [
        "AccountingStorageType=accounting_storage/slurmdbd",
        f"AccountingStorageHost={HOST}",
        f"AccountingStoragePort={ports.slurmdbd}",
        f"AccountingStoragePass={layout.munge_socket}",
        "AccountingStoreFlags=job_comment",
        *(["AccountingStorageEnforce=associations,limits,qos"] if site.limits else []),
    ]


def slurmdbd_conf(layout: Layout, ports: Ports) -> str:
    """The text of slurmdbd.conf."""
    return "\n".join(
        [
            "AuthType=auth/munge",
            f"AuthInfo=socket={layout.munge_socket}",
            f"DbdHost={socket.gethostname().split('.')[0]}",
            f"DbdAddr={HOST}",
            f"DbdPort={ports.slurmdbd}",
            f"SlurmUser={pwd.getpwuid(os.geteuid()).pw_name}",
            f"PidFile={layout.folder}/run/slurmdbd.pid",
            "StorageType=accounting_storage/mysql",
            f"StorageHost={HOST}",
            f"StoragePort={ports.mariadb}",
            "StorageUser=slurm",
            "StoragePass=slurm",
            "StorageLoc=slurm_acct",
            "",
        ]
    )


def sshd_config(site: Site, layout: Layout, port: int, allowed: Person) -> str:
    """The text of an sshd_config: keys only, and the path of slurm.conf for each session."""
    return "\n".join(
        [
            f"Port {port}",
            f"ListenAddress {HOST}",
            f"HostKey {layout.folder}/etc/host_key",
            f"AuthorizedKeysFile {layout.folder}/etc/authorized_keys",
            "PidFile none",
            "UsePAM no",
            "StrictModes no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            f"AllowUsers {allowed.name}",
            f"MaxSessions {site.max_sessions}",
            "Subsystem sftp internal-sftp",
            "LogLevel VERBOSE",
            "PrintMotd no",
            f"SetEnv SLURM_CONF={layout.slurm_conf}",
            "",
        ]
    )
