"""The oracles have teeth: every deliberate bug is caught, and the real kernel passes the same."""

from __future__ import annotations

import inspect
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from rig.mutants import BUGS, Bug
from rig.scenarios import SCENARIOS as TOLD
from rig.scenarios import Scenario
from rig.second_start import SECOND_START
from windlass_adapters.testing.oracles import EndState

pytestmark = [pytest.mark.kit, pytest.mark.usefixtures("quiet")]
TABLE = Path(__file__).parents[2] / "docs" / "guarantees-bugs.md"
ORACLES = {
    "a": "(a) end state",
    "b": "(b) creates and deletes",
    "c": "(c) quiescence",
    "d": "(d) truthful status",
    "e": "(e) event log",
}
SCENARIOS = {**TOLD, SECOND_START.name: SECOND_START}
_REFERENCES: dict[str, EndState] = {}
_CAUGHT: dict[str, str] = {}


async def reference_of(scenario: Scenario) -> EndState:
    if scenario.name not in _REFERENCES:
        _REFERENCES[scenario.name] = await scenario.reference()
    return _REFERENCES[scenario.name]


async def caught_by(bug: Bug) -> str:
    if bug.name not in _CAUGHT:
        scenario = SCENARIOS[bug.scenario]
        reference = await reference_of(scenario)
        with ExitStack() as patched:
            for patch in bug.patches():
                patched.enter_context(patch)
            _CAUGHT[bug.name] = await scenario.caught_by(reference)
    return _CAUGHT[bug.name]


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
async def test_the_real_kernel_passes(scenario: Scenario) -> None:
    await scenario.examine(await reference_of(scenario))


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_deliberate_bug_fits_where_it_is_put(bug: Bug) -> None:
    """What cannot even be called would be caught for that, and not for what it does."""
    for each in bug.patches():
        place: Any = each  # unittest.mock names no type for what patch.object gives
        real = getattr(place.getter(), place.attribute)
        if inspect.isfunction(real):
            taken, given = inspect.signature(place.new), inspect.signature(real)
            assert len(taken.parameters) == len(given.parameters), f"{place.attribute}{given}"


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
async def test_a_deliberate_bug_is_caught(bug: Bug) -> None:
    assert await caught_by(bug), f"no oracle catches: {bug.what}"


async def test_the_table_of_deliberate_bugs_is_up_to_date() -> None:
    """``WINDLASS_WRITE_TABLES=1`` writes it anew."""
    lines = [
        "# Deliberate bugs",
        "",
        f"{len(BUGS)} bugs, put one at a time into the real kernel by `tests/mutation`, each with",
        "the scenario that it is told and the first oracle that objects. The kernel without them",
        "passes the same scenarios. This page is written by that test.",
        "",
        "| Bug | What the kernel does wrong | Scenario | Caught by |",
        "|---|---|---|---|",
    ]
    for bug in BUGS:
        oracle = ORACLES.get(await caught_by(bug), "nothing")
        lines.append(f"| {bug.name} | {bug.what} | {bug.scenario} | {oracle} |")
    text = "\n".join(lines) + "\n"
    if os.environ.get("WINDLASS_WRITE_TABLES"):
        TABLE.write_text(text)
    assert TABLE.read_text() == text, "write it anew: WINDLASS_WRITE_TABLES=1 pytest tests/mutation"
