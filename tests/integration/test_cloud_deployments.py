"""A Deployment on SageMaker from its first document to its last: made, changed, undone, removed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import JsonValue

from rig.cloud import Cloud, cloud_again, cloud_in


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    """A kernel on an account that holds nothing."""
    async with cloud_in(tmp_path) as world:
        yield world


async def served(cloud: Cloud) -> None:
    """A Model and its Deployment, in service."""
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment())
    await cloud.until_ready("Deployment/wine")


async def test_each_thing_is_made_once_and_ready_means_in_service(cloud: Cloud) -> None:
    """Model, config, endpoint; the endpoint under the Deployment's own name."""
    await served(cloud)
    made = cloud.calls()
    assert made["CreateModel"] == made["CreateEndpointConfig"] == made["CreateEndpoint"] == 1
    assert cloud.names("endpoint") == ["wine"]
    assert cloud.held("endpoint")[0].status == "InService"
    ready = await cloud.ready("Deployment/wine")
    assert (ready.reason, ready.message) == ("Synced", "as declared")


async def test_a_new_artifact_is_one_update_and_the_old_parts_go(cloud: Cloud) -> None:
    """A new model, a new config, UpdateEndpoint; then the old config and model are removed."""
    await served(cloud)
    await cloud.declare(cloud.target(), cloud.model(content=b"better"), cloud.deployment())
    await cloud.after(minutes=15)
    await cloud.until_ready("Deployment/wine")
    made = cloud.calls()
    assert made["CreateEndpoint"] == made["UpdateEndpoint"] == 1
    assert made["DeleteEndpointConfig"] == made["DeleteModel"] == 1
    assert len(cloud.names("model")) == len(cloud.names("endpoint-config")) == 1


async def test_an_update_that_fails_says_so_and_is_not_tried_for_ever(cloud: Cloud) -> None:
    """Back to InService on the old config is no success, also for a daemon without memory."""
    await served(cloud)
    (old,) = cloud.names("endpoint-config")
    cloud.aws.plan("update", fail="The container did not pass the ping health check")
    await cloud.declare(cloud.target(), cloud.model(content=b"worse"), cloud.deployment())
    await cloud.after(hours=2)
    ready = await cloud.ready("Deployment/wine")
    assert ready.status == "False"
    assert ready.reason == "UpdateFailed"
    assert "ping health check" in ready.message
    assert cloud.calls()["UpdateEndpoint"] == 1
    await cloud.kill()
    await cloud.after(hours=3)
    assert cloud.calls()["UpdateEndpoint"] == 1
    assert (await cloud.ready("Deployment/wine")).reason == "UpdateFailed"
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment())
    await cloud.after(minutes=15)
    await cloud.until_ready("Deployment/wine")
    assert cloud.names("endpoint-config") == [old]
    assert cloud.calls()["UpdateEndpoint"] == 1


async def test_what_failed_for_want_of_capacity_is_tried_again_later(cloud: Cloud) -> None:
    """That passes by itself: Waiting, not Failed."""
    cloud.aws.plan("create", fail="CapacityError: Unable to provision requested ML compute")
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment())
    await cloud.after(minutes=4)
    ready = await cloud.ready("Deployment/wine")
    assert ready.reason == "WaitingForExternal"
    assert "capacity" in ready.message.lower()
    await cloud.until_ready("Deployment/wine")
    assert cloud.calls()["CreateEndpoint"] == 2


async def test_a_failed_endpoint_is_replaced_when_the_spec_changes(cloud: Cloud) -> None:
    """Nothing but delete helps there; and nothing happens until somebody changes the spec."""
    cloud.aws.plan("create", fail="The image does not exist")
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment())
    await cloud.after(hours=1)
    ready = await cloud.ready("Deployment/wine")
    assert "The image does not exist" in ready.message
    assert cloud.calls()["DeleteEndpoint"] == 0
    image = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/serving:2"
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment(options={"image": image}))
    await cloud.until_ready("Deployment/wine")
    assert cloud.calls()["DeleteEndpoint"] == 1
    assert cloud.calls()["CreateEndpoint"] == 2


async def test_replicas_change_in_place(cloud: Cloud) -> None:
    """No new config, no second fleet."""
    await served(cloud)
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment(replicas=3))
    await cloud.until_ready("Deployment/wine")
    calls = cloud.calls()
    assert calls["UpdateEndpointWeightsAndCapacities"] == 1
    assert calls["CreateEndpointConfig"] == 1
    assert calls["UpdateEndpoint"] == 0
    detail = (await cloud.get("Deployment/wine")).status.detail
    assert detail["endpoint"]["variants"]["AllTraffic"]["replicas"] == 3  # type: ignore[index,call-overload]


async def test_removing_takes_the_endpoint_first_and_reads_that_it_is_gone(cloud: Cloud) -> None:
    """Endpoint, config, model, in this order; nothing is left."""
    await served(cloud)
    await cloud.declare(cloud.target())
    await cloud.until_gone("Deployment/wine")
    await cloud.until_gone("Model/wine")
    order = [call.operation for call in cloud.aws.calls.log if call.operation.startswith("Delete")]
    assert order[:3] == ["DeleteEndpoint", "DeleteEndpointConfig", "DeleteModel"]
    for kind in ("endpoint", "endpoint-config", "model"):
        assert cloud.names(kind) == []


async def test_removing_works_while_the_endpoint_is_being_made(cloud: Cloud) -> None:
    """AWS refuses until it is made: that is waiting, and no error."""
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment())

    async def creating() -> bool:
        return cloud.names("endpoint") == ["wine"]

    await cloud.until(creating)
    await cloud.declare(cloud.target(), cloud.model())
    await cloud.settle()
    ready = await cloud.ready("Deployment/wine")
    assert ready.reason in ("WaitingForExternal", "Deleting")
    await cloud.until_gone("Deployment/wine")
    assert cloud.names("endpoint") == []


async def test_a_name_that_is_taken_is_a_conflict_until_it_is_to_be_adopted(
    cloud: Cloud, tmp_path: Path
) -> None:
    """Nothing of another's is touched; on request it is tagged, then brought to the spec."""
    await served(cloud)
    cloud.aws.calls.clear()
    async with cloud_again(cloud, tmp_path / "second") as second:
        await second.declare(second.target(), second.model(), second.deployment())
        await second.after(minutes=30)
        ready = await second.ready("Deployment/wine")
        assert ready.reason == "Conflict"
        assert "policy.adopt" in ready.message
        assert second.calls()["UpdateEndpoint"] == second.calls()["DeleteEndpoint"] == 0
        adopting = second.document(
            "Deployment", "wine", {"model": "wine", "target": "cloud"}, adopt=True
        )
        await second.declare(second.target(), second.model(), adopting)
        await second.until_ready("Deployment/wine")
        assert second.names("endpoint") == ["wine"]
        await second.declare(second.target(), second.model())
        await second.until_gone("Deployment/wine")
        assert second.names("endpoint") == ["wine"], "what was taken over is given back"


async def test_two_objects_of_ours_cannot_have_one_endpoint(cloud: Cloud) -> None:
    """The second one says so."""
    options: dict[str, JsonValue] = {"endpointName": "shared"}
    first = cloud.deployment(name="first", options=options)
    second = cloud.deployment(name="second", options=options)
    await cloud.declare(cloud.target(), cloud.model(), first, second)
    await cloud.until_ready("Deployment/first")
    await cloud.after(minutes=2)
    assert (await cloud.ready("Deployment/second")).reason == "Conflict"


async def test_another_account_is_never_touched(cloud: Cloud) -> None:
    """Every question there would be answered with: not there."""
    await cloud.declare(cloud.target(account="999999999999"), cloud.model(), cloud.deployment())
    await cloud.after(hours=1)
    ready = await cloud.ready("Model/wine")
    assert ready.reason == "WrongAccount"
    assert set(cloud.calls()) == {"GetCallerIdentity"}


async def test_expired_credentials_fail_nothing_and_ask_once_a_minute(cloud: Cloud) -> None:
    """It is a matter of the account: Ready is unknown, and comes back by itself."""
    await served(cloud)
    before = cloud.calls().total()
    rule = cloud.aws.faults.add("expired", times=100_000)
    await cloud.after(hours=1)
    ready = await cloud.ready("Model/wine")
    assert (ready.status, ready.reason) == ("Unknown", "Unauthorized")
    assert "expired" in ready.message
    assert (await cloud.ready("Deployment/wine")).reason == "DependencyNotReady"
    assert cloud.calls().total() - before <= 65
    rule.times = 0
    await cloud.until_ready("Deployment/wine")
    assert cloud.calls()["CreateEndpoint"] == 1


async def test_a_lost_memory_costs_nothing_where_the_installation_has_a_name(
    cloud: Cloud, tmp_path: Path
) -> None:
    """params.instance: a new state folder finds its own things, and changes none."""
    cloud.params = {"instance": "prod"}
    await served(cloud)
    cloud.aws.calls.clear()
    async with cloud_again(cloud, tmp_path / "second") as second:
        await second.declare(second.target(), second.model(), second.deployment())
        await second.until_ready("Deployment/wine")
        mutating = [c.operation for c in second.aws.calls.log if c.mutates]
    assert mutating == []
