"""Earlier runs are forgotten, oldest first; never what is declared, and never what is in use."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rig.world import World, deployment, document, effects, model
from windlass.metrics import Metrics
from windlass.reconciler import Reconciler
from windlass.store.base import Document, RecordState
from windlass_adapters.base import TransientError
from windlass_schemas import Key


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World.make(tmp_path)
    yield made
    await made.store.close()


def train(version: int, history: int | None = 1) -> Document:
    """One version of the Job."""
    spec: dict[str, object] = {
        "command": ["train"],
        "outputs": {"model": "model.onnx"},
        "params": {"c": version},
    }
    return document("Job", "train", spec if history is None else spec | {"history": history})


async def ran(world: World, *documents: Document, ok: bool = True) -> None:
    """Declare, and let what runs end."""
    await world.declare(*documents)
    await world.settle()
    if world.backend.running():
        world.backend.finish(ok=ok)
    await world.after(seconds=30)


def runs(world: World) -> int:
    return len(world.backend.all("run"))


async def test_as_many_earlier_runs_stay_as_the_job_says(world: World) -> None:
    """Each new version costs the oldest one; the Job is Ready throughout, and nothing is left."""
    for version in range(1, 6):
        await ran(world, train(version))
        found = await world.get("Job/train")
        assert found.status.is_true("Ready", found.generation)
        assert runs(world) == min(version, 2)
        assert len(found.externals) == min(version, 2)
    told = [e.data for e in await world.events("Job/train") if e.data.generation == 5]
    after = [e.to_status for e in told if e.condition == "Ready"]
    assert after[-1] == "True", "forgetting is nobody's news"
    deleted = [e for e in await world.store.history(Key.parse("Job/train"), 100)
               if e.action == "Deleted"]  # fmt: skip
    assert len(deleted) == 3
    assert "older than the 1 that are kept" in deleted[0].message


async def test_a_version_that_is_kept_runs_no_more_and_one_that_is_forgotten_does(
    world: World,
) -> None:
    for version in (1, 2, 3):
        await ran(world, train(version))
    before = effects(world)["create"]
    await ran(world, train(2))
    assert effects(world)["create"] == before
    await ran(world, train(1))
    assert effects(world)["create"] == before + 1


async def test_the_daemons_number_holds_where_the_job_says_none(world: World) -> None:
    """And without that, as in worlds of tests, all stay."""
    for version in (1, 2, 3):
        await ran(world, train(version, None))
    assert runs(world) == 3
    metrics = Metrics()
    world.reconciler = Reconciler(
        world.store, world.targets, metrics.reconcile, lambda: world.now, history=0
    )
    world.look([Key.parse("Job/train")])
    await world.after(seconds=30)
    assert runs(world) == 1
    assert metrics.reconcile.forgotten._value.get() == 2


async def test_what_a_model_still_holds_stays_until_it_holds_another(world: World) -> None:
    """A suspended Model does not take the new output; the run that made the old one stays."""
    await ran(world, train(1, 0), model(), deployment())
    await world.after(seconds=10)
    assert (await world.ready("Deployment/wine")).status == "True"
    held = model(suspend={"reason": "test"})
    await ran(world, train(2, 0), held, deployment())
    assert (await world.ready("Job/train")).status == "True"
    assert runs(world) == 2
    await ran(world, train(2, 0), model(), deployment())
    await world.after(seconds=30)
    assert runs(world) == 1


async def test_a_removal_that_fails_is_tried_again_and_the_job_stays_ready(world: World) -> None:
    for version in (1, 2):
        await ran(world, train(version))
    world.backend.faults["delete"] = deque([TransientError("the disk is away")] * 99)
    await ran(world, train(3))
    found = await world.get("Job/train")
    assert found.status.is_true("Ready", found.generation)
    assert runs(world) == 3
    world.backend.faults.clear()
    await world.after(minutes=10)
    assert runs(world) == 2
    assert (await world.get("Job/train")).status.is_true("Ready", 3)


async def test_failed_runs_of_earlier_versions_go_too(world: World) -> None:
    """The Job is Stalled throughout; those of the declared version count and stay."""
    for version in range(1, 5):
        await ran(world, train(version), ok=False)
        found = await world.get("Job/train")
        assert found.status.is_true("Stalled", found.generation)
    assert runs(world) == 2
    states = {record.state for record in (await world.get("Job/train")).externals}
    assert states == {RecordState.FAILED}
