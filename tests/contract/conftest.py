"""What the contracts of the stores open."""

from __future__ import annotations

from rig.stores import opener

__all__ = ["opener"]
