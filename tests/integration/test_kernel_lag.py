"""A backend that shows an older state: what it shows too early proves nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from rig.world import World, document, effects, job
from windlass_adapters.testing import PERSONALITIES, MemoryBackend, Personality
from windlass_adapters.testing.documents import kept_file
from windlass_adapters.testing.oracles import check_truthful
from windlass_adapters.testing.stepping import Cut
from windlass_schemas import Key

pytestmark = pytest.mark.kit
LAG = timedelta(seconds=3)


async def lagging(folder: Path, personality: Personality) -> World:
    world = await World.make(folder, MemoryBackend(personality, lag=LAG))
    world.checks.append(check_truthful)
    return world


@pytest.mark.parametrize("personality", PERSONALITIES, ids=lambda p: p.name)
@pytest.mark.parametrize("make", [kept_file, job])
async def test_a_create_without_a_reply_is_not_repeated_before_it_can_be_seen(
    tmp_path: Path, personality: Personality, make: object
) -> None:
    assert callable(make)
    world = await lagging(tmp_path, personality)
    world.backend.lose_reply("create")
    await world.declare(make())
    await world.after(seconds=30)
    assert effects(world) == {"create": 1}
    await world.close()


async def test_our_own_update_is_not_drift_while_it_cannot_be_seen(tmp_path: Path) -> None:
    world = await lagging(tmp_path, PERSONALITIES[0])
    await world.declare(kept_file(version=1))
    await world.until_ready("Model/wine")
    await world.declare(kept_file(version=2))
    await world.until_ready("Model/wine")
    assert effects(world) == {"create": 1, "update": 1}
    assert (await world.get("Model/wine")).externals[0].healed == ()
    await world.close()


async def test_an_edit_and_its_revert_are_ready_only_when_the_revert_is_live(
    tmp_path: Path,
) -> None:
    world = await lagging(tmp_path, PERSONALITIES[0])
    await world.declare(kept_file(version=1))
    await world.until_ready("Model/wine")
    await world.after(seconds=10)
    await world.declare(kept_file(version=2))
    await world.settle()
    world.now += timedelta(seconds=1)
    await world.declare(kept_file(version=1))
    await world.settle()
    assert (await world.ready("Model/wine")).status == "False", "what it shows is older"
    await world.until_ready("Model/wine")
    assert effects(world) == {"create": 1, "update": 2}
    await world.close()


async def test_a_removal_that_cannot_be_seen_yet_is_not_asked_for_again(tmp_path: Path) -> None:
    world = await lagging(tmp_path, PERSONALITIES[0])
    await world.declare(kept_file("keep"), kept_file())
    await world.until_ready("Model/keep", "Model/wine")
    await world.declare(kept_file("keep"))
    await world.until_gone("Model/wine")
    assert world.backend.calls["delete"] == 1
    await world.close()


async def test_an_object_stops_being_ready_before_what_it_holds_is_removed(
    tmp_path: Path,
) -> None:
    world = await World.make(tmp_path)
    await world.declare(kept_file("keep"), kept_file())
    await world.until_ready("Model/keep", "Model/wine")
    await world.declare(kept_file("keep"))
    world.backend.calls.clear()
    await world.reconcile(Key.parse("Model/wine"))
    assert (await world.ready("Model/wine")).status == "False"
    assert world.backend.calls["delete"] == 0
    world.cut = Cut((12,))
    world.checks.append(check_truthful)
    await world.until_gone("Model/wine")
    assert world.deaths == 1
    await world.close()


async def test_an_attempt_that_may_have_started_is_not_dropped_for_a_newer_version(
    tmp_path: Path,
) -> None:
    world = await lagging(tmp_path, PERSONALITIES[1])
    world.backend.lose_reply("create")
    spec = {"command": ["train"], "onChange": "replace"}
    await world.declare(document("Job", "train", {**spec, "params": {"c": 1}}))
    await world.settle()
    await world.declare(document("Job", "train", {**spec, "params": {"c": 2}}))
    await world.after(seconds=30)
    assert len(world.backend.held) == 1, "the first one is not left running"
    assert effects(world) == {"create": 2, "delete": 1}
    await world.close()
