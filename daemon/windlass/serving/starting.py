"""What a process that serves and a supervisor have in common. Outside the eight hops."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable

import structlog

from windlass.serving.process import StartError

log = structlog.get_logger()


def stopping_by_signals() -> asyncio.Event:
    """Set when somebody asks this process to end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def again_and_again(seconds: float, act: Callable[[], None]) -> None:
    """Act every so many seconds, whatever comes of it."""
    while True:
        await asyncio.sleep(seconds)
        try:
            act()
        except Exception:  # requests must go on
            log.exception("a look that comes again and again")


@contextlib.asynccontextmanager
async def plain_errors() -> AsyncIterator[None]:
    """A start that failed inside a group of tasks is still one error with one message."""
    try:
        yield
    except BaseExceptionGroup as group:
        found = group.subgroup(StartError)
        if found is None:
            raise
        raise found.exceptions[0] from None
