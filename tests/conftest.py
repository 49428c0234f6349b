"""What every test runs under."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict

import pytest
import structlog
from xdist.remote import Producer
from xdist.workermanage import WorkerController

from rig.leftovers import end_leftovers, end_our_leftovers, mark_this_run
from rig.postgres import Postgres, running_postgres
from rig.rabbitmq import Broker, running_broker
from rig.sharing import OneBroker
from windlass_adapters.testing.schedules import TALLY


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the scenarios of SageMaker are played."""
    parser.addoption(
        "--target",
        choices=("double", "aws"),
        default="double",
        help="SageMaker scenarios: on the double, or on a real account (costs money)",
    )


def pytest_configure() -> None:
    """Say that no event loop is set: else asking for one makes one that nobody closes.

    And keep what is compiled: else every process that a test starts compiles all that it imports.
    And listen to Ctrl-C: a test run in a shell's background would hand its deafness to every
    process that it starts. And end what runs before this one have left behind.
    """
    asyncio.set_event_loop(None)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    mark_this_run()
    end_leftovers()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def quiet() -> Iterator[None]:
    """Say nothing of single passes, where there are tens of thousands of them."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A RabbitMQ of this test run's own; each test takes a virtual host of it."""
    with running_broker() as started:
        yield started


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of this test run's own; each test takes a database of it."""
    with running_postgres() as started:
        yield started


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneBroker:
    """How several processes share the tests."""
    return OneBroker(config, log)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where several processes share the tests, hand this one's counts to the first of them."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tally"] = asdict(TALLY)


def pytest_testnodedown(node: WorkerController) -> None:
    """Add what one of several processes has run."""
    TALLY.add(getattr(node, "workeroutput", {}).get("tally", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much of the kit has run, and which serving processes tests have left behind."""
    for each in end_our_leftovers():
        terminalreporter.write_line(f"left behind by a test, and ended: {each}", red=True)
    if TALLY.schedules or TALLY.interleavings:
        terminalreporter.write_line(
            f"schedules {TALLY.schedules:,}, interleavings {TALLY.interleavings:,}"
            f" (for at least {TALLY.orders:,} orders of steps)"
        )
        for theatre, count in sorted(TALLY.played.items()):
            terminalreporter.write_line(f"  {count:,} of them: {theatre}")
