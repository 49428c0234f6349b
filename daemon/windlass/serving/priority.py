"""Who waits for whom on a processor: the event loop before the threads that compute.

Outside the eight hops. A request of a light model costs microseconds, and must not wait until a
heavy one has used up its turn. Turns of the event loop's thread and of computing ones are asked
to be short (Linux since 6.12 does so; before, nothing changes), and the latter are a little nicer.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading

NICE = 5
"""Of threads that compute: a third of the weight of others, so that other programs beside them do
not leave them without a processor."""
_NICEST = 19
_TURN = 100_000
"""Nanoseconds; the least that the system takes."""
_ATTRIBUTES = struct.Struct("IIQiIQQQ")
_SET_ATTRIBUTES = {"x86_64": 314, "aarch64": 274}.get(platform.machine())
"""The system call ``sched_setattr``, which the C library does not offer."""


def come_first() -> None:
    """This thread answers requests."""
    _take_short_turns()


def come_later() -> None:
    """This thread, and those that it starts, compute."""
    thread = threading.get_native_id()
    nice = min(os.getpriority(os.PRIO_PROCESS, thread) + NICE, _NICEST)
    os.setpriority(os.PRIO_PROCESS, thread, nice)
    _take_short_turns()


def _take_short_turns() -> None:
    """Best effort: an older system, or one that forbids it, serves as well, if less evenly."""
    if _SET_ATTRIBUTES is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, _TURN, 0, 0)
    ctypes.CDLL(None).syscall(_SET_ATTRIBUTES, 0, ctypes.c_char_p(attributes), 0)
