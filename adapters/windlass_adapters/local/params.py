"""What a local Target and the kinds on it may be told: ``Target.spec.params``, ``spec.options``."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from windlass_schemas import Frozen
from windlass_schemas.scalars import Duration


class LocalParams(Frozen):
    """One machine: where models are served and what runs scripts."""

    host: str = Field(default="127.0.0.1", min_length=1)
    """Address on which models are served."""
    port: int = Field(default=8701, ge=0, le=65535)
    """Port on which models are served; 0 takes a free one."""
    grpc_port: int | None = Field(default=None, ge=0, le=65535)
    """Port on which models are served over gRPC; 0 takes a free one. Not at all, when absent."""
    python: str | None = Field(default=None, min_length=1)
    """The Python for ``.py`` entrypoints; by default the one that runs Windlass."""
    daemon: str = ""
    """Name of the daemon whose machine this is, where several daemons share a store; empty for
    whichever opens the Target first."""
    grace: Duration = timedelta(seconds=10)
    """How long a program that must stop has between TERM and KILL."""


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
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    """Execution providers of ONNX Runtime, the preferred first."""
