"""How deep the kit goes: WINDLASS_TEST_DEPTH=long tries everything, as ``make test-long`` does."""

from __future__ import annotations

import os
from dataclasses import dataclass

from windlass_adapters.testing.schedules import Depth


@dataclass(frozen=True)
class TestDepth:
    """What is tried of what there is."""

    __test__ = False

    pairs: Depth
    """Second cuts."""
    all_orders: bool
    """Whether orders of two owners' steps are tried that make no difference."""
    hints: int
    """Of how many hints every subset is dropped."""


LONG = os.environ.get("WINDLASS_TEST_DEPTH") == "long"
EVERYTHING = TestDepth(Depth(), all_orders=True, hints=9)
A_COMMIT = TestDepth(Depth(stride=240), all_orders=False, hints=5)
DEPTH = EVERYTHING if LONG else A_COMMIT
