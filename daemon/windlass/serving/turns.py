"""Who waits for whom on a processor: nobody for long.

Outside the eight hops. A request of a light model costs microseconds, and must not wait until a
heavy one has used up its turn. So the thread that answers and those that compute take short turns.
Nobody gets a smaller share of the processor by that, as lower priorities would have it: beside
another busy program a heavy model would be left almost without one.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading

TURN = 100_000
"""Nanoseconds; the least that the system takes."""
_ATTRIBUTES = struct.Struct("IIQiIQQQ")
_SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274}.get(platform.machine())
"""The system call ``sched_setattr``, which the C library does not offer."""


def take_short_turns() -> None:
    """For this thread and those that it starts; Linux before 6.12 pays no attention.

    Best effort: a system that forbids it serves as well, if less evenly.
    """
    if _SET_ATTRIBUTES is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, TURN, 0, 0)
    ctypes.CDLL(None).syscall(_SET_ATTRIBUTES, 0, ctypes.c_char_p(attributes), 0)
