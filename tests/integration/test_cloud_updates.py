"""How a new version comes into force on SageMaker, and what is said when it does not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import JsonValue

from rig.cloud import Cloud, cloud_in
from rig.sagemaker import rollouts
from windlass.store.base import Document
from windlass_adapters.testing.schedules import FAULTS, TALLY
from windlass_adapters.testing.stepping import Cut

HALF: JsonValue = {"percent": 50}
WAYS: dict[str, JsonValue] = {
    "rolling": {"rolling": {"batch": HALF, "wait": "5m"}},
    "canary": {"blueGreen": {"traffic": "canary", "size": {"percent": 25}, "wait": "5m"}},
    "linear": {"blueGreen": {"traffic": "linear", "size": {"percent": 25}, "wait": "5m"}},
}
FLEET = 4


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    """A kernel on an account that holds nothing, without HTTP between them."""
    async with cloud_in(tmp_path, wire=False) as world:
        yield world


def deployment(cloud: Cloud, updates: JsonValue, alarms: bool = False) -> Document:
    """Four replicas, updated in some way."""
    assert isinstance(updates, dict)
    given: dict[str, JsonValue] = {**updates, **({"alarms": ["errors"]} if alarms else {})}
    return cloud.deployment(options={"updates": given}, replicas=FLEET)


async def serve(cloud: Cloud, found: Document) -> None:
    """The first version, in service."""
    await cloud.declare(cloud.target(), cloud.model(), found)
    await cloud.until_ready("Deployment/wine")


async def change(cloud: Cloud, found: Document) -> None:
    """A second version."""
    await cloud.declare(cloud.target(), cloud.model(content=b"better"), found)


async def ring(cloud: Cloud, state: str) -> None:
    """An alarm in CloudWatch: ``OK`` or ``ALARM``."""
    aws = cloud.aws.in_process()
    alarm = {
        "AlarmName": "errors",
        "MetricName": "Invocation5XXErrors",
        "Namespace": "AWS/SageMaker",
        "Period": 60,
        "EvaluationPeriods": 1,
        "Threshold": 1.0,
        "ComparisonOperator": "GreaterThanThreshold",
        "Statistic": "Sum",
    }
    await aws.call("cloudwatch", "PutMetricAlarm", alarm)
    told = {"AlarmName": "errors", "StateValue": state, "StateReason": "a test says so"}
    await aws.call("cloudwatch", "SetAlarmState", told)
    cloud.aws.account.alarms = lambda: frozenset({"errors"} if state == "ALARM" else ())


def rollout(cloud: Cloud) -> rollouts.Rollout:
    """How the double has it."""
    (endpoint,) = cloud.held("endpoint")
    return rollouts.of(endpoint)


def configs(cloud: Cloud) -> list[str]:
    """What was in force, in order."""
    return rollout(cloud).history


@pytest.mark.parametrize("way", WAYS)
async def test_a_version_comes_into_force_step_by_step(cloud: Cloud, way: str) -> None:
    """Ready only when the last step is done; the old version serves meanwhile, in one update."""
    found = deployment(cloud, WAYS[way])
    await serve(cloud, found)
    await change(cloud, found)
    await cloud.after(minutes=5)
    ready = await cloud.ready("Deployment/wine")
    assert (ready.status, ready.reason) == ("False", "Progressing")
    assert f"of {FLEET} instances" in ready.message
    await cloud.until_ready("Deployment/wine")
    assert len(configs(cloud)) == 2
    assert cloud.calls()["UpdateEndpoint"] == 1
    assert rollout(cloud).most == (FLEET + FLEET // 2 if way == "rolling" else 2 * FLEET)
    cloud.aws.monitor.check()


@pytest.mark.parametrize("way", WAYS)
async def test_an_alarm_in_the_middle_is_an_update_that_failed(cloud: Cloud, way: str) -> None:
    """AWS goes back by itself; that is said, nothing is tried again, and a new version is."""
    await ring(cloud, "OK")
    found = deployment(cloud, WAYS[way], alarms=True)
    await serve(cloud, found)
    (old,) = configs(cloud)
    await change(cloud, found)
    await cloud.after(minutes=5)
    assert (await cloud.ready("Deployment/wine")).reason == "Progressing"
    await ring(cloud, "ALARM")
    await cloud.after(minutes=10)
    await ring(cloud, "OK")
    await cloud.after(hours=1)
    ready = await cloud.ready("Deployment/wine")
    assert (ready.status, ready.reason) == ("False", "UpdateFailed")
    assert "errors" in ready.message
    assert configs(cloud) == [old]
    assert cloud.calls()["UpdateEndpoint"] == 1
    await cloud.declare(cloud.target(), cloud.model(content=b"best"), found)
    await cloud.after(hours=1)
    await cloud.until_ready("Deployment/wine")
    assert cloud.calls()["UpdateEndpoint"] == 2
    cloud.aws.monitor.check()


async def test_no_update_begins_while_its_alarm_rings(cloud: Cloud) -> None:
    """It would be taken back at once: waiting, with the alarm's name."""
    await ring(cloud, "OK")
    found = deployment(cloud, WAYS["rolling"], alarms=True)
    await serve(cloud, found)
    await ring(cloud, "ALARM")
    await change(cloud, found)
    await cloud.after(minutes=5)
    ready = await cloud.ready("Deployment/wine")
    assert ready.reason == "WaitingForExternal"
    assert "errors is in ALARM" in ready.message
    assert cloud.calls()["UpdateEndpoint"] == 0
    await ring(cloud, "OK")
    await cloud.until_ready("Deployment/wine")


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({"rolling": {"batch": {"percent": 60}}}, "rolling.batch: is 5 to 50 percent"),
        ({"rolling": {"batch": {"instances": 3}}}, "5 to 50 percent of 4 replicas"),
        (
            {"blueGreen": {"traffic": "linear", "size": {"percent": 5}, "wait": "1m"}},
            "blueGreen.size: is 10 to 50 percent",
        ),
    ],
)
async def test_steps_that_aws_refuses_are_refused_before(
    cloud: Cloud, updates: JsonValue, message: str
) -> None:
    """By the bounds in AWS's documentation; nothing is made."""
    await cloud.declare(cloud.target(), cloud.model(), deployment(cloud, updates))
    await cloud.after(minutes=5)
    ready = await cloud.ready("Deployment/wine")
    assert ready.reason == "InvalidSpec"
    assert message in ready.message
    assert cloud.calls()["CreateModel"] == 0


async def stuck(cloud: Cloud, *then: str) -> Document:
    """A rolling update that fails, and its rollback too; ``then`` fails what comes after it."""
    found = deployment(cloud, WAYS["rolling"])
    await serve(cloud, found)
    cloud.aws.plan("update", fail="no capacity", step=1, status="UpdateRollbackFailed")
    for reason in then:
        cloud.aws.plan("update", fail=reason, status="UpdateRollbackFailed")
    await change(cloud, found)
    return found


async def test_what_cannot_roll_back_is_told_to_go_back_once(cloud: Cloud) -> None:
    """To the config that was healthy before; the new one stays failed until another is declared."""
    found = await stuck(cloud)
    await cloud.after(hours=1)
    ready = await cloud.ready("Deployment/wine")
    assert (ready.status, ready.reason) == ("False", "UpdateFailed")
    assert "put the old version in force again" in ready.message
    (endpoint,) = cloud.held("endpoint")
    assert endpoint.status == "InService"
    first = configs(cloud)[0]
    assert configs(cloud) == [first, first]
    assert cloud.calls()["UpdateEndpoint"] == 2
    await cloud.kill()
    await cloud.after(hours=1)
    assert cloud.calls()["UpdateEndpoint"] == 2, "remembered in AWS, and not in the daemon"
    assert (await cloud.ready("Deployment/wine")).reason == "UpdateFailed"
    await cloud.declare(cloud.target(), cloud.model(content=b"best"), found)
    await cloud.after(hours=1)
    await cloud.until_ready("Deployment/wine")
    assert cloud.calls()["UpdateEndpoint"] == 3
    assert len(cloud.names("endpoint-config")) == len(cloud.names("model")) == 1
    cloud.aws.monitor.check()


async def test_when_going_back_fails_too_a_person_is_needed(cloud: Cloud) -> None:
    """No second try: both versions serve, and the message says so."""
    await stuck(cloud, "still no capacity")
    await cloud.after(hours=2)
    ready = await cloud.ready("Deployment/wine")
    assert (ready.status, ready.reason) == ("False", "UpdateFailed")
    assert "going back to the old version has failed once as well" in ready.message
    assert (await cloud.condition("Deployment/wine", "Stalled")).status == "True"
    assert cloud.calls()["UpdateEndpoint"] == 2


async def test_the_spec_may_go_back_by_itself(cloud: Cloud) -> None:
    """A revert while the endpoint is stuck: the old config is wanted, and one update brings it."""
    found = await stuck(cloud, "still no capacity")
    await cloud.after(hours=1)
    await cloud.declare(cloud.target(), cloud.model(), found)
    await cloud.after(hours=1)
    await cloud.until_ready("Deployment/wine")
    assert len(cloud.names("endpoint-config")) == 1


async def test_a_lost_order_to_go_back_is_given_again(cloud: Cloud) -> None:
    """The note is written before the order; one that never arrived has not changed the endpoint."""
    cloud.aws.faults.add("reset", "UpdateEndpoint", skip=1)
    await stuck(cloud)
    await cloud.after(hours=1)
    assert len(configs(cloud)) == 2
    assert cloud.aws.calls.done()["UpdateEndpoint"] == 2


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.long)])
async def test_killed_while_it_goes_back_it_goes_back_once(
    cloud: Cloud, tmp_path: Path, stride: int
) -> None:
    """From just before the failure to the end: some awaits here, each in the long tests."""
    whole = Cut()
    await nearly_stuck(cloud)
    cloud.cut = whole
    await cloud.after(minutes=10)
    assert whole.steps > 30
    for step in range(0, whole.steps, stride):
        folder = tmp_path / str(step)
        folder.mkdir()
        async with cloud_in(folder, wire=False) as world:
            await nearly_stuck(world)
            world.cut = Cut((step,), FAULTS["killed"]())
            await world.after(minutes=20)
            assert world.deaths == 1
            assert len(configs(world)) == 2, f"killed at await {step}"
            assert (await world.ready("Deployment/wine")).reason == "UpdateFailed"
            world.aws.monitor.check()
        TALLY.schedules += 1


async def nearly_stuck(cloud: Cloud) -> None:
    """The update has failed, and is about to fail to come back."""
    await stuck(cloud)
    await cloud.after(minutes=8)
    assert [one.status for one in cloud.held("endpoint")] == ["Updating"]
    assert configs(cloud) != []


def test_waits_are_within_what_aws_takes() -> None:
    """An hour at most each, and shorter than the whole."""
    from windlass_adapters.sagemaker.params import Rolling, Updates

    batch = {"percent": 50}
    with pytest.raises(ValueError, match="1h at most"):
        Rolling.model_validate({"batch": batch, "wait": "61m"})
    with pytest.raises(ValueError, match="longer than all waits"):
        Updates.model_validate({"rolling": {"batch": batch, "wait": "10m"}, "maxTime": "10m"})
    assert Rolling.model_validate({"batch": batch, "wait": "1h"}).wait == timedelta(hours=1)
