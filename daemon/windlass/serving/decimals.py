"""Numbers of a JSON array straight to 32-bit floats, where a C compiler was there at the install.

Outside the eight hops. ``floats(body, start, count)`` takes exactly so many numbers in the array
that begins at ``start``, and gives their bytes and where the array ends; None for anything odd,
which the long way then reads. It is None itself where ``_decimals.c`` was not compiled: a library
reads all numbers then, with the same results.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

Floats = Callable[[bytes, int, int], tuple[bytes, int] | None]

floats: Floats | None
try:
    # By name, since what reads sources finds no such module.
    floats = import_module("windlass.serving._decimals").floats
except ImportError:
    floats = None
