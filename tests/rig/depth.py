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
    """Cuts with the memory adapter."""
    real: Depth
    """Cuts with a real adapter above a fake, each of which costs some ten times as much."""
    all_orders: bool
    """Whether orders of two owners' steps are tried that make no difference."""
    hints: int
    """Of how many hints every subset is dropped."""
    moments: int
    """Every how manieth of the moments at which something may happen it does."""

    def passes(self, most: int, shift: int) -> range:
        """After how many passes it happens; others for each ``shift``."""
        return range(shift % self.moments, most, self.moments)


LONG = os.environ.get("WINDLASS_TEST_DEPTH") == "long"
EVERYTHING = TestDepth(Depth(), Depth(stride=16), all_orders=True, hints=9, moments=1)
A_COMMIT = TestDepth(
    pairs=Depth(stride=240, errors=5),
    real=Depth(reach=0, every=12, errors=3),
    all_orders=False,
    hints=5,
    moments=2,
)
DEPTH = EVERYTHING if LONG else A_COMMIT
