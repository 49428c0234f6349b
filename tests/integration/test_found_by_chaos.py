"""Faults that the property test has found in the kernel, each as its shortest story."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from rig.chaos import ChaosBackend, ChaosWorld, running
from rig.interrupt import Interrupted
from rig.world import SOURCE, deployment, document, job, model
from windlass.store.base import Document, LeaseLostError, Snapshot
from windlass.targets import Targets
from windlass_adapters.base import WaitingError
from windlass_adapters.testing import SERVER_CHOSEN, SLURM_LIKE
from windlass_schemas import Key, Reason

pytestmark = pytest.mark.kit
JOB = Key.parse("Job/train")
OTHER = "folder:/other"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ChaosWorld]:
    made = await ChaosWorld.begin(tmp_path, ChaosBackend())
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


async def test_a_finished_run_on_a_host_that_is_away_waits_for_it(
    world: ChaosWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The built-in target is declared nowhere, and its runs are there all the same."""
    await publish(world, job("keep"), job())
    await world.settle()
    world.backend.finish("default.train")
    await world.after(minutes=5)
    kept = (await world.get("Job/keep")).uid

    async def away(*_: object) -> None:
        raise WaitingError("its host is away", reason=Reason.HOST_AWAY)

    with monkeypatch.context() as patched:
        patched.setattr(Targets, "_check_home", away)
        await world.kill()
        await publish(world, job("keep"))
        await world.after(hours=1)
        assert (await world.get("Job/train")).externals
    await world.after(hours=1)
    assert await world.store.get(JOB) is None
    assert [held.owner_uid for held in world.backend.all("run")] == [kept]


async def test_an_id_that_is_given_again_stops_nobody(tmp_path: Path) -> None:
    """A scheduler reuses the ids of runs that it has forgotten, and our books still name those."""
    world = await ChaosWorld.begin(tmp_path, ChaosBackend(personality=SLURM_LIKE))
    await publish(world, job("first"))
    await world.settle()
    world.backend.finish("default.first")
    await world.after(minutes=10)
    await publish(world, job("first"), job("second"))
    await world.after(minutes=2)
    world.backend.finish("default.second")
    await world.after(minutes=10)
    first, second = await world.get("Job/first"), await world.get("Job/second")
    assert first.externals[0].external_id == second.externals[0].external_id == "1001"
    assert (await world.ready("Job/second")).status == "True"
    await publish(world, job("first"), job("second"), job("third"))
    await world.after(minutes=2)
    await publish(world, job("second"), job("third"))
    await world.after(minutes=10)
    assert await world.store.get(Key.parse("Job/first")) is None, "its run is removed all the same"
    await world.store.close()


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


def replacing(c: int, target: str = "local") -> Document:
    spec = {"command": ["x"], "params": {"c": c}, "onChange": "replace", "target": target}
    return document("Job", "train", spec)


async def test_a_lost_request_to_stop_a_replaced_run_is_sent_again(world: ChaosWorld) -> None:
    await publish(world, replacing(1))
    await world.settle()
    world.backend.lose_request("delete")
    await publish(world, replacing(2))
    await world.after(minutes=5)
    assert [h.body["params"] for h in running(world.backend)] == [{"c": 2}]


@pytest.mark.parametrize("ok", [True, False])
async def test_a_run_that_was_going_and_is_wanted_again_comes_to_its_end(
    world: ChaosWorld, ok: bool
) -> None:
    """Its removal was intended and never sent; then it was declared again, and the run ended."""
    await publish(world, job("keep"), job())
    await world.settle()
    world.backend.lose_request("delete")
    await publish(world, job("keep"))
    await world.reconcile(JOB)
    await publish(world, job("keep"), job())
    world.backend.finish("default.train", ok=ok)
    await world.after(minutes=5)
    if not ok:
        world.backend.finish("default.train")
        await world.after(minutes=5)
    assert (await world.ready("Job/train")).status == "True"


async def test_a_list_that_lags_hides_no_run_that_is_to_be_replaced(world: ChaosWorld) -> None:
    world.backend.note()
    world.backend.lag = timedelta(seconds=15)
    await publish(world, replacing(1))
    await world.settle()
    world.backend.lose_request("delete")
    await publish(world, replacing(2))
    await world.after(minutes=10)
    assert [h.body["params"] for h in running(world.backend)] == [{"c": 2}]


async def test_a_list_that_lags_makes_nothing_twice(tmp_path: Path) -> None:
    """The reply was lost and the list is behind: not to be seen is not yet not to be there."""
    world = await ChaosWorld.begin(tmp_path, ChaosBackend(personality=SERVER_CHOSEN))
    world.backend.note()
    world.backend.lag = timedelta(seconds=15)
    world.backend.lose_reply("create")
    await publish(world, job())
    await world.after(minutes=10)
    assert len(world.backend.held) == 1
    await world.store.close()


async def test_a_server_that_moves_away_under_a_lagging_list_is_removed_there(
    world: ChaosWorld,
) -> None:
    target = document("Target", "t", {"adapter": "local"})
    await publish(world, target, job(), model(), deployment())
    await world.settle()
    world.backend.finish()
    world.backend.note()
    world.backend.lag = timedelta(seconds=15)
    while "server" not in {h.external.role for h in world.backend.held.values()}:
        await world.next_pass()
    moved = document("Deployment", "wine", {"model": "wine", "target": "t"})
    await publish(world, target, job(), model(), moved)
    await world.after(minutes=15)
    assert [h.external.name[-2:] for h in world.backend.all("server")] == ["-t"]


async def test_ready_waits_for_the_update_when_an_older_state_looks_right(
    world: ChaosWorld,
) -> None:
    """There and back while the list is behind: what looks as declared is what was there before."""
    await publish(world, job(), model(), deployment(), job("other"), model("two", "other"))
    await world.settle()
    for name in ("default.train", "default.other"):
        world.backend.finish(name)
    await world.after(minutes=5)
    world.backend.note()
    world.backend.lag = timedelta(seconds=15)
    there = [job(), model(), deployment(of="two"), job("other"), model("two", "other")]
    await publish(world, *there)
    await world.settle()
    await publish(world, job(), model(), deployment(), job("other"), model("two", "other"))
    for _ in range(10):
        await world.next_pass()
        found = await world.get("Deployment/wine")
        if found.status.is_true("Ready", found.generation):
            break
    assert world.backend.named("server").body["model"] == "wine"


@pytest.mark.parametrize("at", range(5))
async def test_a_pass_that_has_lost_its_claim_before_it_acts_is_no_fault_of_ours(
    world: ChaosWorld, at: int
) -> None:
    """Another one was quicker: the pass ends with just that, and no traceback is logged."""
    await publish(world, job())

    async def be_quicker() -> None:
        await world.reconciler.reconcile(JOB)

    with capture_logs() as logs, suppress(LeaseLostError):
        await Interrupted(world.reconciler.reconcile(JOB), at, be_quicker)
    assert [line["event"] for line in logs if line["log_level"] == "error"] == []
    assert len(world.backend.held) == 1
