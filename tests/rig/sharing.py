"""Which tests share a process when several run them: those of a file, and all that use the broker.

A broker takes some 30 s of processor time in a test run, most of it to start and to stop, so one
process starts one and has all of its tests. Files begin in the order in which they were found.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from xdist.scheduler.loadfile import LoadFileScheduling

BROKER = "the broker's"


class OneBroker(LoadFileScheduling):  # type: ignore[misc]  # xdist has no types
    """What goes to one process together."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return BROKER if uses_the_broker(file) else file


@cache
def uses_the_broker(file: str) -> bool:
    """Whether a test of this file, asks for ``conftest.broker``."""
    return "broker: Broker" in (Path(__file__).parents[2] / file).read_text()
