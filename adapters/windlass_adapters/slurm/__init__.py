"""The Slurm adapter: Jobs on a cluster that one reaches by SSH, each exactly once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from windlass_adapters.slurm.adapter import SlurmAdapter

__all__ = ["SlurmAdapter"]


def __getattr__(name: str) -> object:
    if name == "SlurmAdapter":
        from windlass_adapters.slurm.adapter import SlurmAdapter

        return SlurmAdapter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
