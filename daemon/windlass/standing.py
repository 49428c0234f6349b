"""What one daemon at a time does, among several: follow a source, publish the outbox.

Whoever holds the lease works; the others stand by and try to get it now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from windlass.store.base import LeaseLostError, StoreError
from windlass.store.roster import Roster

_log = structlog.get_logger("windlass.standing")


class LostError(Exception):
    """The lease is another daemon's now."""


async def while_held(
    roster: Roster, lease: str, work: Callable[[], Awaitable[None]], stand_by: Callable[[], None]
) -> None:
    """Run the work for ever, while no other daemon does; ``stand_by`` is told of each loss."""
    interval = roster.lease.total_seconds() / 3
    while True:
        try:
            held = await roster.hold(lease)
        except StoreError as error:
            _log.warning("the store did not say who does it", lease=lease, error=str(error))
            held = False
        if held:
            _log.info("doing it", lease=lease)
            await _work(roster, lease, work, interval)
        stand_by()
        await asyncio.sleep(interval)


async def _work(
    roster: Roster, lease: str, work: Callable[[], Awaitable[None]], interval: float
) -> None:
    """Do it until it is another's. Every write checks that too, so this may find out late."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_keep(roster, lease, interval))
            await work()
    except* (LostError, LeaseLostError):
        _log.warning("another daemon does it now", lease=lease)


async def _keep(roster: Roster, lease: str, interval: float) -> None:
    while True:
        await asyncio.sleep(interval)
        try:
            held = await roster.hold(lease)
        except StoreError:
            continue  # nobody can say; what is written is checked then
        if not held:
            raise LostError
