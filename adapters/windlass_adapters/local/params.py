"""What a local Target and the kinds on it may be told: ``Target.spec.params``, ``spec.options``."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from windlass_schemas import MEMORY_PATTERN, Frozen, parse_memory
from windlass_schemas.scalars import Duration


class Tls(Frozen):
    """A certificate and its key: files in PEM on this machine."""

    certificate: str = Field(min_length=1)
    """Path of the certificate, with those between it and the root."""
    key: str = Field(min_length=1)
    """Path of its key; read by the serving process alone."""


class LocalParams(Frozen):
    """One machine: where models are served and what runs scripts."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address on which models are served."""
    port: int = Field(default=8701, ge=0, le=65535)
    """Port on which models are served; 0 takes a free one."""
    grpc_port: int | None = Field(default=None, ge=0, le=65535)
    """Port on which models are served over gRPC; 0 takes a free one. Not at all, when absent."""
    tls: Tls | None = None
    """Serve by TLS; plain HTTP, when absent."""
    access_log: float = Field(default=0.0, ge=0, le=1)
    """Share of the requests that ``serving.log`` tells of, each with its trace."""
    memory: str | None = Field(default=None, pattern=MEMORY_PATTERN)
    """What all models together may take, for example ``4Gi``; who is not asked for sleeps then."""
    processes: int = Field(default=1, ge=1, le=64)
    """Processes that serve, at most: as many as the Deployment with most replicas has, up to this.
    Each has its own copy of every model."""
    idle: Duration = timedelta(minutes=10)
    """After this long with nothing deployed, and nobody who asks, the serving process ends."""
    python: str | None = Field(default=None, min_length=1)
    """The Python for ``.py`` entrypoints; by default the one that runs Windlass."""
    daemon: str = ""
    """Name of the daemon whose machine this is, where several daemons share a store; empty for
    whichever opens the Target first."""
    grace: Duration = timedelta(seconds=10)
    """How long a program that must stop has between TERM and KILL."""

    @property
    def memory_bytes(self) -> int | None:
        """``memory`` in bytes."""
        return parse_memory(self.memory) if self.memory is not None else None


class NoOptions(Frozen):
    """A kind that takes no options here."""


class DeploymentOptions(Frozen):
    """How a model is served."""

    threads: int | None = Field(default=None, ge=1, le=64)
    """Threads that one inference may use; ``resources.cpus`` says the same, by default 1."""
    max_batch: int = Field(default=32, ge=1, le=4096)
    """Rows that may run together; 1 turns batching off."""
    max_delay: Duration | None = Field(default=None, le=timedelta(seconds=10))
    """How long a free replica may wait for more rows; learned from the model, when absent."""
    max_waiting: int = Field(default=1024, ge=1, le=1 << 20)
    """Requests that may wait; more get 429."""
    max_run: Duration = Field(default=timedelta(seconds=60), gt=timedelta(0))
    """After this long a run counts as hung, and its replica is replaced."""
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    """Execution providers of ONNX Runtime, the preferred first."""
    prepack: bool = True
    """Whether weights are copied into the order that computes fastest. Without, those that lie
    beside the model stay in the file's pages, which processes share."""
