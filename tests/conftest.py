"""What every test runs under."""

from __future__ import annotations

import asyncio

import pytest

from windlass_adapters.testing.schedules import TALLY


def pytest_configure() -> None:
    """Say that no event loop is set: else asking for one makes one that nobody closes."""
    asyncio.set_event_loop(None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much of the kit has run."""
    if TALLY.schedules or TALLY.interleavings:
        terminalreporter.write_line(
            f"schedules {TALLY.schedules:,}, interleavings {TALLY.interleavings:,}"
        )
