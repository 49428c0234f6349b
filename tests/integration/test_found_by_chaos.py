"""Faults that the property test has found in the kernel, each as its shortest story."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rig.chaos import ChaosBackend, ChaosWorld, adapter_for
from rig.world import SOURCE, document, job
from windlass.store.base import Document, Snapshot
from windlass_schemas import Key

JOB = Key.parse("Job/train")
OTHER = "folder:/other"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ChaosWorld]:
    backend = ChaosBackend()
    made = await ChaosWorld.make(tmp_path, backend, adapter_for(backend))
    yield made
    await made.store.close()


async def publish(world: ChaosWorld, *documents: Document, source: str = SOURCE) -> None:
    world.revision += 1
    await world.take(Snapshot(source, f"r{world.revision}", "ann", documents))


@pytest.mark.parametrize("at", range(12))
async def test_what_is_declared_again_during_its_last_pass_stays(
    world: ChaosWorld, at: int
) -> None:
    """The pass that lets go of an object may not take a new declaration of it along."""
    await publish(world, job("keep"), job(onDelete="orphan"))
    await world.settle()
    await publish(world, job("keep"))

    async def declare_again() -> None:
        await publish(world, job("keep"), job(onDelete="orphan"))

    await world.interrupted_pass(JOB, at, declare_again)
    await world.after(minutes=5)
    found = await world.store.get(JOB)
    assert found is not None
    assert found.deleting_since is None


async def test_a_document_that_moves_to_another_source_is_taken_over_by_it(
    world: ChaosWorld,
) -> None:
    """The newcomer had to wait while the first source declared it too; then it gets it."""
    await publish(world, job("keep"), job())
    await world.settle()
    await publish(world, job(), source=OTHER)
    await publish(world, job("keep"))
    await world.after(minutes=30)
    found = await world.store.get(JOB)
    assert found is not None
    assert found.source == OTHER


async def test_an_object_whose_target_never_was_can_be_removed(world: ChaosWorld) -> None:
    await publish(world, job("keep"), document("Job", "train", {"command": ["x"], "target": "t"}))
    await world.settle()
    await publish(world, job("keep"))
    await world.after(hours=1)
    assert await world.store.get(JOB) is None


async def test_a_target_stays_while_something_is_held_on_it(world: ChaosWorld) -> None:
    """A job has moved away and its run goes on there: without the target, nobody could look."""
    target = document("Target", "t", {"adapter": "local"})
    there = document("Job", "train", {"command": ["x"], "target": "t"})
    await publish(world, job("keep"), target, there)
    await world.settle()
    await publish(world, job("keep"), document("Job", "train", {"command": ["x"]}))
    await world.after(minutes=5)
    assert await world.store.get(Key.parse("Target/t")) is not None
    world.backend.finish("default.train")
    await world.after(minutes=5)
    world.backend.finish("default.train")
    await world.after(minutes=30)
    assert (await world.ready("Job/train")).status == "True"
    assert await world.store.get(Key.parse("Target/t")) is None
