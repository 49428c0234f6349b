"""The Slurm adapter under the kit's schedules: killed and disturbed at every await of its own.

The adapter and the program of the login node are the real ones; below them is a model of Slurm, of
which ``test_slurm_model`` shows that it says what a real cluster says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from pydantic import JsonValue

from rig.depth import LONG
from rig.slurm_model import Traits
from rig.slurm_stage import SlurmStage, Wire, cast_of
from windlass_adapters.testing.life import StageLoop
from windlass_adapters.testing.schedules import FAULTS, Depth, Theatre

# What is dead never runs again, and so leaves what it had open to the garbage collector.
pytestmark = [
    pytest.mark.kit,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


class Place(NamedTuple):
    """A cluster, the way to it, and more of the spec of the Jobs there."""

    traits: Traits = Traits()
    lossy: float = 0.0
    spec: Mapping[str, JsonValue] = {}
    unheard: bool = False

    def stage(self, ground: Path) -> SlurmStage:
        """A fresh one."""
        return SlurmStage(ground, self.traits, Wire(self.lossy), self.unheard)


PLACES = {
    "plain": Place(),
    "forgets at once and gives ids again": Place(Traits(min_job_age=2, reuses_ids=True)),
    "accounting that lags": Place(Traits(min_job_age=2, accounting=True, accounting_lag=4)),
    "answers get lost, sbatch's too": Place(Traits(unclear_sbatch=2, start_delay=8), lossy=0.2),
    "arrays": Place(spec={"array": {"indices": "0-1"}}),
    "every hint is lost": Place(Traits(min_job_age=2), unheard=True),
}
SAMPLE = Depth(reach=0, every=29, errors=2)
"""For every commit: one await in so many."""
THIRD = Depth(reach=0, every=3)
SINGLES = Depth(reach=0)
PAIRS = Depth() if LONG else Depth(stride=12, every=3)


def _play(place: str, fault: str, depth: Depth, *names: str) -> None:
    """Play all stories, or some."""

    async def some(theatre: Theatre) -> int:
        told = [story for story in theatre.stories() if story.name in names or not names]
        return sum([await theatre.try_all(story, depth, fault) for story in told])

    cast = cast_of(**PLACES[place].spec)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # it costs no disk
    with TemporaryDirectory(prefix="wl-stage-", dir=memory) as name:
        stage = partial(PLACES[place].stage, Path(name) / "stage")
        theatre = Theatre(f"slurm, {place}", stage, cast)
        with asyncio.Runner(loop_factory=StageLoop) as runner:
            assert runner.run(some(theatre)) > 0


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_a_sample_of_awaits_each_run_exists_once_and_ends_as_declared(place: str) -> None:
    """Submitted once, started once, stopped once, and nobody else's job is touched."""
    _play(place, "killed", SAMPLE)


def test_killed_at_every_third_await_of_a_run_it_exists_once_and_ends_as_declared() -> None:
    """The shortest way there is from a spec to a success."""
    _play("plain", "killed", THIRD, "run a job to success")


@pytest.mark.parametrize("fault", [f for f in FAULTS if f != "killed"])
def test_disturbed_at_a_sample_of_awaits_it_ends_as_declared(fault: str) -> None:
    """Cancelled, timed out, or with a store that refuses."""
    _play("plain", fault, SAMPLE.for_fault(fault))


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", PLACES)
def test_disturbed_at_every_await_it_ends_as_declared(place: str, fault: str) -> None:
    """All of them, everywhere."""
    _play(place, fault, SINGLES)


@pytest.mark.long
@pytest.mark.timeout(14400)
@pytest.mark.parametrize("place", ["plain", "answers get lost, sbatch's too"])
def test_killed_and_killed_again_in_the_recovery_each_run_exists_once(place: str) -> None:
    """Pairs of kills; all of them with WINDLASS_TEST_DEPTH=long."""
    _play(place, "killed", PAIRS)
