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
    switches: int
    """Between two owners, after the stall."""
    hints: int
    """Of how many hints every subset is dropped."""


LONG = os.environ.get("WINDLASS_TEST_DEPTH") == "long"
DEPTH = TestDepth(Depth(), switches=3, hints=9) if LONG else TestDepth(Depth(stride=96), 1, hints=5)
