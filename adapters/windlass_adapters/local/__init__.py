"""The local adapter: Jobs, Models and Deployments on this machine, with nothing installed.

``LocalAdapter`` is loaded on first use: the processes that run a Job or look into a model import
this package too, and must start in milliseconds and stay small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from windlass_adapters.local.adapter import LocalAdapter

__all__ = ["LocalAdapter"]


def __getattr__(name: str) -> object:
    if name == "LocalAdapter":
        from windlass_adapters.local.adapter import LocalAdapter

        return LocalAdapter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
