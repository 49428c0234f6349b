"""The main job in the kernel: train, hold, serve; edit, revert, fail, remove. Backend in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rig.world import World, deployment, document, effects, job, model
from windlass.store.base import Approve, Fault
from windlass_adapters.base import State, TerminalError, TransientError, WaitingError
from windlass_schemas import Key, Reason


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = await World.make(tmp_path)
    yield made
    await made.store.close()


async def test_each_waits_for_the_one_before_and_all_become_ready(world: World) -> None:
    await world.declare(deployment(), model(), job())
    await world.settle()
    assert (await world.ready("Deployment/wine")).reason == Reason.DEPENDENCY_NOT_READY
    assert "Job/default/train" in (await world.ready("Deployment/wine")).message
    assert (await world.ready("Job/train")).reason == Reason.PROGRESSING
    world.backend.finish()
    await world.after(seconds=3)
    for text in ("Job/train", "Model/wine", "Deployment/wine"):
        assert (await world.ready(text)).status == "True", text
    assert (await world.get("Job/train")).status.is_true("Succeeded", 1)
    assert effects(world) == {"create": 3}


async def served(world: World) -> str:
    return world.backend.named("server").digest


async def trained(world: World, **params: int) -> str:
    await world.declare(deployment(), model(), job(params=params))
    await world.settle()
    if any(h.state is State.PROGRESSING for h in world.backend.held.values()):
        world.backend.finish()
    await world.after(seconds=5)
    assert (await world.ready("Deployment/wine")).status == "True"
    return await served(world)


async def test_an_edit_retrains_and_swaps_and_a_revert_comes_back_without_a_run(
    world: World,
) -> None:
    first = await trained(world, c=1)
    second = await trained(world, c=2)
    assert second != first
    before = effects(world)["create"]
    assert await trained(world, c=1) == first
    assert effects(world)["create"] == before, "the earlier artifact is known"


async def test_the_served_model_stays_while_a_new_one_is_trained(world: World) -> None:
    first = await trained(world, c=1)
    await world.declare(deployment(), model(), job(params={"c": 2}))
    await world.after(seconds=30)
    assert await served(world) == first
    ready = await world.ready("Deployment/wine")
    assert (ready.status, ready.reason) == ("False", Reason.DEPENDENCY_NOT_READY)
    assert (await world.get("Deployment/wine")).status.health == "Healthy"


async def test_what_serves_is_put_back_even_while_its_model_is_being_retrained(
    world: World,
) -> None:
    first = await trained(world, c=1)
    await world.declare(deployment(), model(), job(params={"c": 2}))
    await world.settle()
    world.backend.held.clear()
    await world.after(seconds=61)
    assert await served(world) == first


async def test_retries_and_time_limits_do_not_retrain(world: World) -> None:
    await world.declare(job())
    await world.settle()
    world.backend.finish()
    await world.after(seconds=2)
    spec = {"command": ["train"], "outputs": {"model": "model.onnx"}, "timeLimit": "1h"}
    await world.declare(document("Job", "train", {**spec, "retries": 3}))
    await world.after(seconds=5)
    assert (await world.get("Job/train")).generation == 2
    assert (await world.ready("Job/train")).status == "True"
    assert effects(world) == {"create": 1}


async def test_a_finished_job_stays_finished_when_the_backend_forgets_it(world: World) -> None:
    await trained(world)
    world.backend.held.pop(next(name for name in world.backend.held if name[0] == "run"))
    await world.after(hours=1)
    assert (await world.ready("Job/train")).status == "True"
    assert effects(world) == {"create": 3}


async def test_a_failing_job_gets_its_retries_and_then_stalls_until_a_sync(world: World) -> None:
    spec = {"command": ["train"], "retries": 1}
    await world.declare(document("Job", "train", spec))
    await world.settle()
    world.backend.finish(ok=False, message="exit 1")
    await world.after(seconds=1.5)
    ready = await world.ready("Job/train")
    assert ready.reason == Reason.RETRYING
    assert ready.message == "exit 1; the next attempt is due"
    await world.after(seconds=5)
    world.backend.finish(ok=False, message="exit 1")
    await world.after(seconds=10)
    stalled = await world.condition("Job/train", "Stalled")
    assert (stalled.status, stalled.reason) == ("True", Reason.FAILED)
    assert "exit 1" in stalled.message
    assert effects(world) == {"create": 2}
    await world.after(hours=5)
    assert effects(world) == {"create": 2}, "no attempt without a change"


async def test_infrastructure_failures_do_not_use_up_the_retries(world: World) -> None:
    await world.declare(job())
    await world.settle()
    for _ in range(3):
        world.backend.finish(ok=False, message="machine stopped", counts=False)
        await world.after(seconds=20)
    world.backend.finish()
    await world.after(seconds=5)
    assert (await world.ready("Job/train")).status == "True"
    assert effects(world) == {"create": 4}


async def test_an_edit_waits_for_the_running_attempt_by_default(world: World) -> None:
    await world.declare(job(params={"c": 1}))
    await world.settle()
    await world.declare(job(params={"c": 2}))
    await world.after(seconds=10)
    assert effects(world) == {"create": 1}
    assert "earlier version is still running" in (await world.ready("Job/train")).message
    world.backend.finish()
    await world.after(seconds=5)
    assert effects(world) == {"create": 2}


async def test_on_change_replace_stops_the_running_attempt(world: World) -> None:
    spec = {"command": ["train"], "onChange": "replace"}
    await world.declare(document("Job", "train", {**spec, "params": {"c": 1}}))
    await world.settle()
    await world.declare(document("Job", "train", {**spec, "params": {"c": 2}}))
    await world.after(seconds=5)
    assert effects(world) == {"create": 2, "delete": 1}


async def test_on_change_refuse_never_runs_again(world: World) -> None:
    spec = {"command": ["train"], "onChange": "refuse"}
    await world.declare(document("Job", "train", {**spec, "params": {"c": 1}}))
    await world.settle()
    world.backend.finish()
    await world.after(seconds=5)
    await world.declare(document("Job", "train", {**spec, "params": {"c": 2}}))
    await world.after(seconds=5)
    assert (await world.ready("Job/train")).reason == Reason.CHANGE_REFUSED
    assert effects(world) == {"create": 1}


async def test_removal_goes_in_reverse_order_and_leaves_nothing(world: World) -> None:
    await trained(world)
    await world.declare(job("other"))
    await world.settle()
    goodbyes = [e for e in await world.events() if e.data.condition == "Deleted"]
    assert {e.data.reason for e in goodbyes} == {Reason.DELETING}
    assert [e.subject for e in goodbyes] == [
        "Deployment/default/wine",
        "Model/default/wine",
        "Job/default/train",
    ]
    assert [name for role, name in world.backend.held if "other" not in name] == []
    assert await world.store.get(Key.parse("Job/train")) is None
    assert (await world.store.history(Key.parse("Job/train"), 1))[0].action == "Removed"


async def test_deleted_and_declared_again_is_another_object(world: World) -> None:
    await trained(world)
    uid = (await world.get("Job/train")).uid
    await world.declare(job("other"))
    await world.settle()
    await world.declare(job("other"), job())
    await world.settle()
    assert (await world.get("Job/train")).uid != uid


async def test_on_delete_orphan_leaves_the_external_behind(world: World) -> None:
    await world.declare(job("keep"), job(onDelete="orphan"))
    await world.settle()
    await world.declare(job("keep"))
    await world.settle()
    assert await world.store.get(Key.parse("Job/train")) is None
    assert any("train" in name for _, name in world.backend.held)
    assert (await world.store.history(Key.parse("Job/train"), 1))[0].action == "Orphaned"


async def test_on_delete_block_and_suspension_hold_a_deletion_back(world: World) -> None:
    suspended = job("paused", suspend={"reason": "audit"})
    await world.declare(job("keep"), job(onDelete="block"), suspended)
    await world.settle()
    await world.declare(job("keep"))
    await world.settle()
    for text in ("Job/train", "Job/paused"):
        assert (await world.ready(text)).reason == Reason.DELETION_BLOCKED
    assert "audit" in (await world.ready("Job/paused")).message


async def test_a_suspended_object_is_watched_but_not_acted_on(world: World) -> None:
    await world.declare(job(suspend={"reason": "budget", "until": "2030-01-01T01:00:00Z"}))
    await world.after(minutes=59)
    assert effects(world) == {}
    assert (await world.ready("Job/train")).reason == Reason.SUSPENDED
    assert (await world.get("Job/train")).status.health == "Suspended"
    await world.after(minutes=2)
    assert effects(world) == {"create": 1}, "it resumes by itself"


async def test_a_bad_document_keeps_the_last_good_version_and_prunes_nothing(world: World) -> None:
    await trained(world)
    fault = Fault("train.yaml", 3, 5, "spec.comand", "unknown field", Key.parse("Job/train"))
    await world.declare(deployment(), faults=[fault])
    await world.after(minutes=2)
    stalled = await world.condition("Job/train", "Stalled")
    assert (stalled.status, stalled.reason) == ("True", Reason.INVALID_SPEC)
    assert "train.yaml:3:5 spec.comand" in stalled.message
    assert (await world.ready("Job/train")).status == "True"
    assert await world.store.get(Key.parse("Model/wine")) is not None
    await world.declare(deployment(), model(), job())
    await world.settle()
    assert (await world.condition("Job/train", "Stalled")).status == "False"


async def test_the_breaker_stops_a_revision_that_removes_too_much(world: World) -> None:
    jobs = [job(f"j{i}") for i in range(10)]
    await world.declare(*jobs)
    await world.settle()
    applied = await world.declare(*jobs[:4])
    await world.settle()
    assert len(applied.blocked) == 6
    assert (await world.condition("Job/j9", "Stalled")).reason == Reason.PRUNE_BLOCKED
    assert "delete" not in effects(world)
    world.look(await world.store.request(Approve("r2", "ann"), world.now))
    await world.settle()
    assert effects(world)["delete"] == 6


async def test_an_empty_source_removes_nothing_by_itself(world: World) -> None:
    await trained(world)
    await world.declare()
    await world.after(minutes=2)
    assert (await world.condition("Job/train", "Stalled")).reason == Reason.PRUNE_BLOCKED
    assert "delete" not in effects(world)


@pytest.mark.parametrize(
    ("prune", "reason"),
    [("confirm", Reason.AWAITING_APPROVAL), ("never", Reason.PRUNE_SKIPPED)],
)
async def test_prune_policy_keeps_an_object_whose_document_is_gone(
    world: World, prune: str, reason: Reason
) -> None:
    await world.declare(job("keep"), job(prune=prune))
    await world.settle()
    await world.declare(job("keep"))
    await world.settle()
    assert (await world.condition("Job/train", "Stalled")).reason == reason
    assert (await world.get("Job/train")).status.sync == "OutOfSync"
    assert "delete" not in effects(world)


async def test_two_sources_of_one_key_are_both_told_and_the_owner_keeps_it(world: World) -> None:
    await world.declare(job(params={"c": 1}))
    applied = await world.declare(job(params={"c": 2}), source="folder:/other")
    await world.settle()
    assert applied.conflicts == {Key.parse("Job/train"): "folder:/specs"}
    stalled = await world.condition("Job/train", "Stalled")
    assert stalled.reason == Reason.SOURCE_CONFLICT
    assert "folder:/other" in stalled.message
    assert (await world.get("Job/train")).generation == 1
    await world.declare(source="folder:/other")
    await world.settle()
    assert (await world.condition("Job/train", "Stalled")).status == "False"


async def test_a_cycle_between_sources_is_named(world: World) -> None:
    dependent = [{"ref": "Job/b"}]
    await world.declare(job("a", dependsOn=dependent))
    await world.declare(job("b", dependsOn=[{"ref": "Job/a"}]), source="folder:/other")
    await world.settle()
    await world.after(minutes=1)
    ready = await world.ready("Job/a")
    assert ready.reason == Reason.DEPENDENCY_CYCLE
    assert "Job/default/a -> Job/default/b -> Job/default/a" in ready.message
    assert effects(world) == {}


async def test_drift_is_put_right_and_a_fight_is_named(world: World) -> None:
    await trained(world)
    for _ in range(120):
        held = world.backend.named("server")
        held.body = {**held.body, "model": "other"}
        await world.after(seconds=5)
        world.look([Key.parse("Deployment/wine")])
    ready = await world.ready("Deployment/wine")
    assert ready.reason == Reason.DRIFT_FIGHT
    assert "/model" in ready.message
    assert effects(world)["update"] <= 12


async def test_ignored_fields_and_self_heal_none_cause_no_write(world: World) -> None:
    await world.declare(
        job(), model(), deployment(ignore=["/model"]), deployment("two", selfHeal="none")
    )
    await world.settle()
    world.backend.finish()
    await world.after(seconds=5)
    for name in ("default.wine", "default.two"):
        held = world.backend.named("server", name)
        held.body = {**held.body, "model": "other"}
    await world.after(hours=1)
    assert "update" not in effects(world)
    assert (await world.ready("Deployment/wine")).status == "True"
    assert (await world.ready("Deployment/two")).reason == Reason.DRIFTED


async def test_an_unknown_answer_changes_nothing(world: World) -> None:
    await trained(world)
    before = dict(world.backend.effects)
    world.backend.fail("observe_many", *[OSError("no route to host")] * 40)
    world.backend.held.clear()
    await world.after(seconds=61)
    ready = await world.ready("Model/wine")
    assert (ready.status, ready.reason) == ("Unknown", Reason.BACKEND_UNAVAILABLE)
    assert dict(world.backend.effects) == before


async def test_transient_errors_back_off_with_a_persisted_count(world: World) -> None:
    world.backend.fail("create", *[TransientError("down")] * 4)
    await world.declare(job())
    await world.after(seconds=8)
    found = await world.get("Job/train")
    assert found.status.attempt == 4
    reborn = await world.kill()
    await reborn.after(seconds=5)
    assert (await reborn.get("Job/train")).status.attempt == 4, "the count survives a restart"
    await reborn.after(seconds=10)
    assert (await reborn.ready("Job/train")).reason == Reason.PROGRESSING
    assert effects(reborn) == {"create": 1}
    await reborn.store.close()


async def test_waiting_counts_no_attempt_and_terminal_stalls_until_a_change(world: World) -> None:
    world.backend.fail("create", WaitingError("quota 0 of 4"), TerminalError("no such image"))
    await world.declare(job())
    await world.settle()
    assert (await world.get("Job/train")).status.attempt == 0
    assert (await world.ready("Job/train")).reason == Reason.WAITING
    await world.after(seconds=2)
    stalled = await world.condition("Job/train", "Stalled")
    assert (stalled.status, stalled.message) == ("True", "no such image")
    await world.after(minutes=50)
    assert effects(world) == {}
    await world.declare(job(params={"c": 2}))
    await world.settle()
    assert effects(world) == {"create": 1}


async def test_waiting_for_long_fills_no_history_and_wakes_nobody(world: World) -> None:
    world.backend.fail("create", *[WaitingError("quota 0 of 4")] * 100)
    await world.declare(job(), model())
    await world.after(seconds=90)
    history = await world.store.history(Key.parse("Job/train"), 100)
    assert [(e.action, e.result) for e in history] == [
        ("Created", "WaitingForExternal"),
        ("CreateIntended", "intended"),
        ("Declared", "ok"),
    ]
    looked = world.passes
    await world.after(seconds=9)
    assert world.passes - looked <= 11, "only the one that waits looks again"


async def test_a_lost_reply_is_looked_up_and_nothing_is_made_twice(world: World) -> None:
    world.backend.lost_replies["create"] = 1
    await world.declare(job())
    await world.after(seconds=10)
    assert effects(world) == {"create": 1}
    assert (await world.get("Job/train")).externals[0].state == "created"


async def test_a_name_that_belongs_to_another_uid_is_never_touched(world: World) -> None:
    await trained(world)
    world.backend.named("server").owner_uid = "somebody"
    before = dict(world.backend.effects)
    await world.after(minutes=10)
    assert dict(world.backend.effects) == before
    assert "belongs to another object" in (await world.ready("Deployment/wine")).message


async def test_a_deadline_names_what_it_waited_for(world: World) -> None:
    await world.declare(job(deadlines={"ready": "10m"}))
    await world.after(minutes=11)
    stalled = await world.condition("Job/train", "Stalled")
    assert stalled.reason == Reason.DEADLINE_EXCEEDED
    world.backend.finish()
    await world.after(seconds=3)
    assert (await world.ready("Job/train")).status == "True"


async def test_a_missing_target_and_a_missing_adapter_say_so(world: World) -> None:
    await world.declare(
        document("Job", "a", {"command": ["x"], "target": "cluster"}),
        document("Target", "cloud", {"adapter": "sky"}),
        document("Job", "b", {"command": ["x"], "target": "cloud"}),
    )
    await world.settle()
    assert "Target/default/cluster is not declared" in (await world.ready("Job/a")).message
    assert (await world.ready("Target/cloud")).reason == Reason.ADAPTER_NOT_FOUND
    assert "installed: local" in (await world.ready("Target/cloud")).message
    assert (await world.ready("Job/b")).reason == Reason.DEPENDENCY_NOT_READY


async def test_events_are_numbered_without_a_gap_and_tell_only_transitions(world: World) -> None:
    await trained(world, c=1)
    await trained(world, c=2)
    await world.after(hours=1)
    for text in ("Job/train", "Model/wine", "Deployment/wine"):
        events = await world.events(text)
        assert [e.data.seq for e in events] == list(range(1, len(events) + 1))
        truth: dict[str, str] = {}
        for event in events:
            data = event.data
            assert truth.get(data.condition, "Unknown") == data.from_status or (
                data.condition not in truth
            )
            truth[data.condition] = data.to_status


async def test_a_settled_world_makes_no_writes_and_no_changes(world: World) -> None:
    await trained(world)
    await world.after(minutes=5)
    before, effects_before = world.writes(), world.backend.mutations()
    await world.after(hours=2)
    assert world.passes > 100
    assert world.writes() == before
    assert world.backend.mutations() == effects_before
