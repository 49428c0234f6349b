"""How the double moves traffic: rolling, canary and linear, as AWS documents them."""

from __future__ import annotations

from typing import Any

import pytest

from rig.sagemaker import rollouts
from rig.sagemaker.account import Account
from rig.sagemaker.double import SageMakerDouble
from rig.sagemaker.refusals import Refusal
from rig.sagemaker.samples import make_config, make_live
from rig.sagemaker.shifting import course_of

ALARMED = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "errors"}]}}


@pytest.fixture
def aws() -> SageMakerDouble:
    """An account, without its server, with an endpoint of four instances and a second config."""
    made = SageMakerDouble()
    make_live(made.foreign)
    made.foreign.scale("e", "AllTraffic", 4)
    make_config(made.foreign, "c2")
    return made


def percent(value: int) -> dict[str, Any]:
    """A share of the fleet."""
    return {"Type": "CAPACITY_PERCENT", "Value": value}


def blue_green(kind: str, wait: int = 300, **more: Any) -> dict[str, Any]:
    """A policy with two fleets."""
    routing = {"Type": kind, "WaitIntervalInSeconds": wait, **more}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}


def rolling(size: dict[str, Any], wait: int = 300, **more: Any) -> dict[str, Any]:
    """A policy with batches."""
    return {
        "RollingUpdatePolicy": {"MaximumBatchSize": size, "WaitIntervalInSeconds": wait, **more}
    }


def update(aws: SageMakerDouble, deployment: dict[str, Any]) -> None:
    """Begin an update that keeps the four instances."""
    aws.foreign.call(
        "UpdateEndpoint",
        EndpointName="e",
        EndpointConfigName="c2",
        RetainAllVariantProperties=True,
        DeploymentConfig=deployment,
    )


def told(aws: SageMakerDouble) -> dict[str, Any]:
    """The endpoint as anybody sees it."""
    return aws.foreign.call("DescribeEndpoint", EndpointName="e")


def fleets(aws: SageMakerDouble) -> tuple[int, int]:
    """Old and new instances during an update."""
    endpoint = told(aws)
    (old,) = endpoint["ProductionVariants"]
    (new,) = endpoint["PendingDeploymentSummary"]["ProductionVariants"]
    return old["CurrentInstanceCount"], new["CurrentInstanceCount"]


def stage(aws: SageMakerDouble) -> str:
    """What the pending variant says of itself."""
    (new,) = told(aws)["PendingDeploymentSummary"]["ProductionVariants"]
    return str(new["VariantStatus"][0]["Status"])


def rollout(aws: SageMakerDouble) -> rollouts.Rollout:
    """The endpoint's rollout, from inside."""
    (endpoint,) = aws.account.all("endpoint")
    return rollouts.of(endpoint)


def test_rolling_exchanges_the_fleet_batch_by_batch(aws: SageMakerDouble) -> None:
    """Two of four, a baking time, the other two; never more than one batch too many."""
    update(aws, rolling(percent(50)))
    assert stage(aws) == "Creating"
    aws.clock.advance(seconds=61)
    assert (fleets(aws), stage(aws)) == ((2, 2), "Baking")
    aws.clock.advance(seconds=310)
    assert (fleets(aws), stage(aws)) == ((2, 2), "Creating")
    aws.clock.advance(seconds=60)
    assert fleets(aws) == (0, 4)
    aws.clock.advance(seconds=310)
    assert told(aws)["EndpointConfigName"] == "c2"
    assert rollout(aws).most == 6


def test_blue_green_has_two_whole_fleets(aws: SageMakerDouble) -> None:
    """And moves the traffic, not the instances."""
    update(aws, blue_green("CANARY", CanarySize=percent(25)))
    aws.clock.advance(seconds=121)
    assert fleets(aws) == (4, 4)
    (old,), (new,) = told(aws)["ProductionVariants"], rollout(aws).pending.variants.values()  # type: ignore[union-attr]
    assert (old["CurrentWeight"], new.weight) == (0.75, 0.25)
    aws.clock.advance(seconds=300 + 10 + 300 + 1)
    assert told(aws)["EndpointConfigName"] == "c2"
    assert rollout(aws).most == 8


def test_linear_takes_as_many_steps_as_its_size_needs(aws: SageMakerDouble) -> None:
    """Three steps of two for a fleet of five; the last one takes what is left."""
    policy = blue_green("LINEAR", LinearStepSize={"Type": "INSTANCE_COUNT", "Value": 2})
    shares = [shift.share for shift in course_of(aws.account, policy, 5).shifts]
    assert shares == [0.4, 0.8, 1.0]


@pytest.mark.parametrize(
    "policy",
    [
        rolling(percent(25)),
        blue_green("CANARY", CanarySize=percent(25)),
        blue_green("LINEAR", LinearStepSize=percent(25)),
    ],
    ids=["rolling", "canary", "linear"],
)
def test_an_alarm_in_the_middle_takes_all_traffic_back(
    aws: SageMakerDouble, policy: dict[str, Any]
) -> None:
    """After the first step is well, and not only at the end."""
    update(aws, {**policy, **ALARMED})
    aws.clock.advance(seconds=200)
    assert told(aws)["EndpointStatus"] == "Updating"
    aws.account.alarms = lambda: frozenset({"errors"})
    aws.clock.advance(seconds=60)
    aws.account.alarms = frozenset  # it rang, and no more
    aws.clock.advance(seconds=60)
    found = told(aws)
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("InService", "c")
    assert "errors" in found["FailureReason"]
    assert found["ProductionVariants"][0]["CurrentInstanceCount"] == 4


@pytest.mark.parametrize(
    "policy",
    [
        rolling(percent(51)),
        rolling(percent(4)),
        rolling({"Type": "INSTANCE_COUNT", "Value": 3}),
        blue_green("CANARY", CanarySize=percent(60)),
        blue_green("CANARY"),
        blue_green("LINEAR", LinearStepSize=percent(9)),
        {**rolling(percent(50)), **blue_green("ALL_AT_ONCE")},
        rolling(percent(50), wait=600, MaximumExecutionTimeoutInSeconds=600),
    ],
)
def test_what_the_documentation_forbids_is_refused(
    aws: SageMakerDouble, policy: dict[str, Any]
) -> None:
    """Sizes out of bounds, two policies, and waits that are longer than the whole."""
    with pytest.raises(Refusal, match="words not known"):
        update(aws, policy)
    assert told(aws)["EndpointStatus"] == "InService"


def test_what_takes_too_long_is_taken_back(aws: SageMakerDouble) -> None:
    """MaximumExecutionTimeoutInSeconds is for the whole update."""
    update(aws, rolling(percent(25), wait=400, MaximumExecutionTimeoutInSeconds=600))
    aws.clock.advance(minutes=30)
    assert told(aws)["EndpointConfigName"] == "c"
    assert "MaximumExecutionTimeout" in told(aws)["FailureReason"]


def test_a_rolling_update_that_cannot_go_back_leaves_both(aws: SageMakerDouble) -> None:
    """UpdateRollbackFailed: a mix of the old and new configurations."""
    aws.plan("update", fail="no capacity", step=1, status="UpdateRollbackFailed")
    update(aws, rolling(percent(50), wait=0))
    aws.clock.advance(minutes=10)
    found = told(aws)
    assert (found["EndpointStatus"], found["EndpointConfigName"]) == ("UpdateRollbackFailed", "c")
    assert found["ProductionVariants"][0]["CurrentInstanceCount"] == 2


def test_going_back_in_batches_takes_as_many_rounds() -> None:
    """RollbackMaximumBatchSize; by default all at once."""
    account: Account = SageMakerDouble().account
    all_at_once = course_of(account, rolling(percent(50)), 4).back
    halves = course_of(account, rolling(percent(50), RollbackMaximumBatchSize=percent(50)), 4).back
    assert halves == 2 * all_at_once
