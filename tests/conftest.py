"""What every test runs under."""

from __future__ import annotations

import asyncio


def pytest_configure() -> None:
    """Say that no event loop is set: else asking for one makes one that nobody closes."""
    asyncio.set_event_loop(None)
