"""What every test runs under."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import structlog


def pytest_configure() -> None:
    """Say that no event loop is set: else asking for one makes one that nobody closes."""
    asyncio.set_event_loop(None)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Say nothing of single passes, where there are tens of thousands of them."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.reset_defaults()
