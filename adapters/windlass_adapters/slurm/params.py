"""What a Target with ``adapter: slurm`` is told: ``Target.spec.params``."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictInt, model_validator

from windlass_adapters.slurm.options import JobOptions
from windlass_schemas import Frozen
from windlass_schemas.scalars import Duration

_TOP = 2
"""A root must lie at least this deep: ``/`` and ``/scratch`` are nobody's own."""


_SHORTEST = timedelta(milliseconds=100)


def _path(value: str) -> str:
    if not re.fullmatch(r"/[A-Za-z0-9._/+@-]*", value):
        raise ValueError(
            "must begin with / and hold letters, digits and . _ + @ - only; ~ and $HOME are not"
            " known here"
        )
    return value


def _root(value: str) -> str:
    path = PurePosixPath(value)
    if ".." in path.parts or len(path.parts) <= _TOP:
        raise ValueError(
            "must be a folder of your own on a shared disk, such as /scratch/me/windlass"
        )
    return str(path)


Plain = Annotated[str, Field(pattern=r"^[A-Za-z0-9._@:%+-]+$")]
RemotePath = Annotated[str, AfterValidator(_path)]


class JumpHost(Frozen):
    """A machine on the way."""

    host: Plain
    port: int = Field(default=22, ge=1, le=65535)
    user: Plain | None = None


class Limits(Frozen):
    """What the adapter may cost the cluster."""

    channels: StrictInt = Field(default=4, ge=1, le=10)
    """Commands at once over the one connection; fewer, where the server allows fewer."""
    batch: StrictInt = Field(default=100, ge=1, le=500)
    """Submissions in one command."""
    sbatch: StrictInt = Field(default=4, ge=1, le=16)
    """How many of them wait for the controller at once."""
    poll: Duration = timedelta(seconds=5)
    """Time between two looks at the queue while something happens in it."""
    idle_poll: Duration = timedelta(seconds=60)
    """The longest time between two looks while nothing happens."""
    concurrent: StrictInt = Field(default=64, ge=1, le=1000)
    """Objects of this Target that are worked on at once."""

    @model_validator(mode="after")
    def _ordered(self) -> Limits:
        if self.poll < _SHORTEST:
            raise ValueError("poll must be at least 100ms; leave it out for 5s")
        if self.idle_poll < self.poll:
            raise ValueError("idlePoll must not be shorter than poll")
        return self


class SlurmParams(Frozen):
    """A cluster, and how one reaches it."""

    host: Plain
    """The login node, or a ``Host`` of ``~/.ssh/config``."""
    port: int | None = Field(default=None, ge=1, le=65535)
    user: Plain | None = None
    jump_hosts: tuple[JumpHost, ...] = ()
    """Machines on the way, nearest first; ``ProxyJump`` of the ssh configuration works too."""
    key: str | None = Field(default=None, min_length=1)
    """The private key, by reference: ``file:/path`` or ``env:NAME``. Else the agent's."""
    passphrase: str | None = Field(default=None, pattern=r"^(env|file):.+$")
    """Of the key, by reference."""
    certificate: str | None = Field(default=None, min_length=1)
    """Path of an SSH certificate for the key; read anew for each connection."""
    known_hosts: str | None = Field(default=None, min_length=1)
    """Path of the file with the hosts' keys; by default ``~/.ssh/known_hosts``."""
    host_key: str | None = Field(default=None, pattern=r"^(ssh|ecdsa)-[a-z0-9-]+ [A-Za-z0-9+/=]+$")
    """The login node's public key itself, ``ssh-ed25519 AAAA...``."""
    insecure_ignore_host_key: Literal[True] | None = None
    """Do not verify whom one speaks to. Anybody on the way can then take over the account."""
    ssh_config: str | None = Field(default="~/.ssh/config", min_length=1)
    """The ssh configuration to honour; ``null`` for none."""
    remote_root: Annotated[RemotePath, AfterValidator(_root)]
    """A folder of your own that login and compute nodes share; not the home folder."""
    slurm_bin: RemotePath | None = None
    """Folder of ``sbatch`` and its like, where it is not on the PATH of a login."""
    slurm_conf: RemotePath | None = None
    """``SLURM_CONF``, where the login does not set it."""
    remote_python: Annotated[str, Field(pattern=r"^[A-Za-z0-9._/+-]+$")] = "python3"
    """A Python 3.6 or newer on the login node."""
    python: str = Field(default="python3", min_length=1)
    """The Python for ``.py`` entrypoints, in the container or on the compute node."""
    setup: tuple[str, ...] = ()
    """Lines of bash that each run begins with, such as ``module load apptainer``."""
    runtimes: tuple[Literal["apptainer", "singularity"], ...] = ("apptainer", "singularity")
    """Programs that run containers, the preferred one first."""
    defaults: JobOptions = JobOptions()
    """Options of Jobs that do not say otherwise."""
    grace: Duration = timedelta(seconds=30)
    """Time between TERM and ``scancel`` for a program that must stop."""
    soak: Duration = timedelta(seconds=15)
    """How long something must not be seen before it is believed to be gone."""
    lost_after: Duration = timedelta(minutes=5)
    """How long a run may be neither in the queue nor have left a result."""
    keep: Duration = timedelta(days=7)
    """How long the folder of a finished run, and what no run has any more, stay on the cluster."""
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _one_trust(self) -> SlurmParams:
        given = [self.known_hosts, self.host_key, self.insecure_ignore_host_key]
        if sum(each is not None for each in given) > 1:
            raise ValueError("needs at most one of knownHosts, hostKey and insecureIgnoreHostKey")
        return self

    @model_validator(mode="after")
    def _key_is_a_reference(self) -> SlurmParams:
        if self.key is not None and not self.key.startswith(("env:", "file:")):
            raise ValueError("key: write file:/path or env:NAME, never the key itself")
        return self
