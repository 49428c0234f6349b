"""Windlass: GitOps for machine-learning models and jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from windlass.bus.client import publish

__all__ = ["publish"]


def __getattr__(name: str) -> object:
    """Loaded late: most programs that import a part of Windlass publish nothing."""
    if name != "publish":
        raise AttributeError(f"module 'windlass' has no attribute {name!r}")
    from windlass.bus.client import publish

    return publish
