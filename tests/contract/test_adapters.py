"""Every adapter of ours under the conformance kit."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from rig.depth import DEPTH
from rig.telling import TellingRig
from windlass_adapters.testing import DETERMINISTIC, SERVER_CHOSEN, SLURM_LIKE, MemoryBackend
from windlass_adapters.testing.contract import AdapterContract, MemoryRig, Rig
from windlass_adapters.testing.schedules import Theatre

pytestmark = pytest.mark.kit
LAG = timedelta(seconds=3)


class TestDeterministicNames(AdapterContract):
    """Names are ours: a second create cannot make a second one."""

    depth = DEPTH.pairs

    def make(self, folder: Path) -> Rig:
        return MemoryRig(folder, DETERMINISTIC)

    def theatre(self) -> Theatre:
        return Theatre("deterministic", lambda: MemoryBackend(DETERMINISTIC))


class TestServerChosenIds(AdapterContract):
    """Two creates make two, and a list is up to three seconds old."""

    depth = DEPTH.pairs

    def make(self, folder: Path) -> Rig:
        return MemoryRig(folder, SERVER_CHOSEN)

    def theatre(self) -> Theatre:
        return Theatre("server-chosen", lambda: MemoryBackend(SERVER_CHOSEN, lag=LAG))


class TestLikeSlurm(AdapterContract):
    """What is over is forgotten, ids come back, lists lag, and a job claims its name."""

    depth = DEPTH.pairs

    def make(self, folder: Path) -> Rig:
        return MemoryRig(folder, SLURM_LIKE)

    def theatre(self) -> Theatre:
        return Theatre("slurm-like", lambda: MemoryBackend(SLURM_LIKE, lag=LAG))


class TestTellsChanges(AdapterContract):
    """It sees by itself what changes."""

    def make(self, folder: Path) -> Rig:
        return TellingRig(folder, DETERMINISTIC)
