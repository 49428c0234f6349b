"""Fleets behind an endpoint: autoscaling, several variants, serverless, and how updates go."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import JsonValue

from rig.cloud import Cloud, cloud_in
from rig.sagemaker import rollouts
from windlass.store.base import Document

SCALING: dict[str, JsonValue] = {
    "min": 1,
    "max": 3,
    "metric": "concurrency",
    "target": 20,
    "stabilisation": {"up": "30s", "down": "30s"},
}


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    """A kernel on an account that holds nothing."""
    async with cloud_in(tmp_path) as world:
        yield world


async def declare(cloud: Cloud, deployment: Document) -> None:
    """Declare it, and let it come to rest."""
    await cloud.declare(cloud.target(), cloud.model(), deployment)
    await cloud.after(minutes=15)
    await cloud.until_ready("Deployment/wine")


async def test_autoscaling_is_set_once_edited_once_and_removed(cloud: Cloud) -> None:
    """1 to 3, target 20, cooldowns of 30 s; then max 2; then none."""
    await declare(cloud, cloud.deployment(autoscaling=SCALING))
    calls = cloud.calls()
    assert calls["RegisterScalableTarget"] == calls["PutScalingPolicy"] == 1
    put = next(c for c in cloud.aws.calls.log if c.operation == "PutScalingPolicy").request
    config = put["TargetTrackingScalingPolicyConfiguration"]
    assert config["TargetValue"] == 20
    assert (config["ScaleInCooldown"], config["ScaleOutCooldown"]) == (30, 30)
    await declare(cloud, cloud.deployment(autoscaling=SCALING | {"max": 2}))
    calls = cloud.calls()
    assert calls["RegisterScalableTarget"] == 2
    assert calls["PutScalingPolicy"] == 1
    assert calls["UpdateEndpoint"] == 0
    await declare(cloud, cloud.deployment())
    assert cloud.calls()["DeregisterScalableTarget"] == 1


async def test_autoscaling_that_somebody_removed_comes_back(cloud: Cloud) -> None:
    """Drift of what is not in the list of endpoints is found by the hourly audit."""
    await declare(cloud, cloud.deployment(autoscaling=SCALING))
    async with cloud.aws.client("application-autoscaling") as scaling:
        await scaling.deregister_scalable_target(
            ServiceNamespace="sagemaker",
            ResourceId="endpoint/wine/variant/AllTraffic",
            ScalableDimension="sagemaker:variant:DesiredInstanceCount",
        )
    await cloud.after(hours=2)
    assert cloud.calls()["RegisterScalableTarget"] == 2
    await cloud.until_ready("Deployment/wine")


async def test_another_instance_type_leaves_autoscaling_and_comes_back_to_it(cloud: Cloud) -> None:
    """AWS refuses to change the type of a fleet that is scaled."""
    await declare(cloud, cloud.deployment(autoscaling=SCALING))
    await declare(
        cloud, cloud.deployment(autoscaling=SCALING, options={"instanceType": "ml.c5.large"})
    )
    order = [
        c.operation
        for c in cloud.aws.calls.log
        if c.operation in ("DeregisterScalableTarget", "UpdateEndpoint", "RegisterScalableTarget")
    ]
    assert order == [
        "RegisterScalableTarget",
        "DeregisterScalableTarget",
        "UpdateEndpoint",
        "RegisterScalableTarget",
    ]


async def test_an_autoscaled_count_is_nobodys_drift(cloud: Cloud) -> None:
    """The scaler sets it; an update keeps it."""
    await declare(cloud, cloud.deployment(autoscaling=SCALING))
    async with cloud.aws.client("sagemaker") as sagemaker:
        await sagemaker.update_endpoint_weights_and_capacities(
            EndpointName="wine",
            DesiredWeightsAndCapacities=[{"VariantName": "AllTraffic", "DesiredInstanceCount": 3}],
        )
    cloud.aws.calls.clear()
    await cloud.after(hours=2)
    assert cloud.calls()["UpdateEndpointWeightsAndCapacities"] == 0
    await cloud.declare(
        cloud.target(), cloud.model(content=b"new"), cloud.deployment(autoscaling=SCALING)
    )
    await cloud.after(minutes=15)
    await cloud.until_ready("Deployment/wine")
    (update,) = [c for c in cloud.aws.calls.log if c.operation == "UpdateEndpoint"]
    assert update.request["RetainAllVariantProperties"] is True


async def test_weights_of_variants_change_in_place(cloud: Cloud) -> None:
    """Two fleets of one Model."""

    def options(weight: float) -> dict[str, JsonValue]:
        return {
            "variants": [
                {"name": "small", "weight": 1, "instanceType": "ml.m5.large"},
                {"name": "large", "weight": weight, "instanceType": "ml.m5.xlarge"},
            ]
        }

    await declare(cloud, cloud.deployment(options=options(1)))
    await declare(cloud, cloud.deployment(options=options(3)))
    calls = cloud.calls()
    assert calls["CreateModel"] == calls["CreateEndpointConfig"] == 1
    assert calls["UpdateEndpointWeightsAndCapacities"] == 1


async def test_a_serverless_endpoint_has_memory_and_concurrency(cloud: Cloud) -> None:
    """And its concurrency changes in place."""
    await declare(cloud, cloud.deployment(options={"serverless": {"maxConcurrency": 5}}))
    await declare(cloud, cloud.deployment(options={"serverless": {"maxConcurrency": 9}}))
    assert cloud.calls()["UpdateEndpoint"] == 0
    assert cloud.calls()["UpdateEndpointWeightsAndCapacities"] == 1


async def test_an_endpoint_with_instances_does_not_become_serverless(cloud: Cloud) -> None:
    """AWS has no way back: said before anything is sent, and the other way is an update."""
    serverless: dict[str, JsonValue] = {"serverless": {"maxConcurrency": 5}}
    small = cloud.deployment("small", options=serverless)
    await cloud.declare(cloud.target(), cloud.model(), small)
    await cloud.until_ready("Deployment/small")
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment("small"))
    await cloud.after(minutes=15)
    await cloud.until_ready("Deployment/small")
    await cloud.declare(cloud.target(), cloud.model(), small)
    await cloud.after(minutes=15)
    ready = await cloud.ready("Deployment/small")
    assert ready.reason == "InvalidSpec"
    assert "endpointName" in ready.message
    assert [one.status for one in cloud.held("endpoint")] == ["InService"]
    assert cloud.calls()["UpdateEndpoint"] == 1


async def test_variants_come_and_go_in_one_update(cloud: Cloud) -> None:
    """The ones that stay keep their counts, and what nobody uses is removed."""
    small: dict[str, JsonValue] = {"name": "small", "replicas": 2}
    large: dict[str, JsonValue] = {"name": "large", "instanceType": "ml.m5.xlarge"}
    other: dict[str, JsonValue] = {"name": "other", "env": {"THREADS": "2"}}
    await declare(cloud, cloud.deployment(options={"variants": [small, large]}))
    await declare(cloud, cloud.deployment(options={"variants": [small, other]}))
    assert cloud.aws.calls.done()["UpdateEndpoint"] == 1
    (endpoint,) = cloud.held("endpoint")
    variants = rollouts.of(endpoint).variants
    assert {name: v.current for name, v in variants.items()} == {"small": 2, "other": 1}
    assert len(cloud.names("endpoint-config")) == 1
    assert len(cloud.names("model")) == 2, "one for each environment"
    cloud.aws.monitor.check()


async def test_an_update_goes_by_the_policy_that_is_declared(cloud: Cloud) -> None:
    """Canary, with its waits."""
    updates: JsonValue = {
        "blueGreen": {
            "traffic": "canary",
            "size": {"percent": 50},
            "wait": "5m",
            "terminationWait": "2m",
        },
        "maxTime": "30m",
    }
    await declare(cloud, cloud.deployment(options={"updates": updates}))
    image = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/serving:2"
    await declare(cloud, cloud.deployment(options={"updates": updates, "image": image}))
    (update,) = [c for c in cloud.aws.calls.log if c.operation == "UpdateEndpoint"]
    policy = update.request["DeploymentConfig"]["BlueGreenUpdatePolicy"]
    assert policy["TrafficRoutingConfiguration"] == {
        "Type": "CANARY",
        "WaitIntervalInSeconds": 300,
        "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50},
    }


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"rollout": {"canary": {}}}, "spec.rollout"),
        ({"access": "public"}, "spec.access"),
        ({"resources": {"gpus": 1}}, "spec.resources"),
        ({"autoscaling": SCALING | {"metric": "latency"}}, "spec.autoscaling.metric"),
        ({"autoscaling": SCALING | {"min": 0}}, "spec.autoscaling.min"),
        ({"options": {"serverless": {}, "isolated": True}}, "spec.options.isolated"),
        ({"options": {"serverless": {}, "maxHourlyCost": 1}}, "spec.options.maxHourlyCost"),
        (
            {"options": {"variants": [{"name": "a", "serverless": {}}, {"name": "b"}]}},
            "spec.options.variants",
        ),
    ],
)
async def test_what_sagemaker_cannot_do_is_refused(
    cloud: Cloud, spec: dict[str, JsonValue], said: str
) -> None:
    """Never accepted and ignored."""
    made = cloud.document("Deployment", "wine", {"model": "wine", "target": "cloud", **spec})
    await cloud.declare(
        cloud.target(),
        cloud.model(),
        made,
    )
    await cloud.after(minutes=1)
    ready = await cloud.ready("Deployment/wine")
    assert ready.reason == "InvalidSpec"
    assert said in ready.message
