"""What an endpoint may cost, how long it may stay, and that a look says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import JsonValue

from rig.cloud import Cloud, Only, cloud_in
from windlass.metrics import Metrics
from windlass.orphans import Orphans
from windlass_adapters.base import Estimates


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    """A kernel with rates, on an account that holds nothing."""
    rates = tmp_path / "rates.yaml"
    rates.write_text("ml.m5.large: 0.115\n")
    async with cloud_in(tmp_path, rates=str(rates)) as world:
        yield world


async def test_an_endpoint_that_may_cost_too_much_is_not_made(cloud: Cloud) -> None:
    """The message has both amounts."""
    options: dict[str, JsonValue] = {"maxHourlyCost": 0.3}
    many = cloud.deployment(options=options, replicas=3)
    await cloud.declare(cloud.target(), cloud.model(), many)
    await cloud.after(minutes=5)
    ready = await cloud.ready("Deployment/wine")
    assert ready.reason == "CostLimitExceeded"
    assert "0.345 $" in ready.message
    assert cloud.calls()["CreateEndpoint"] == 0
    few = cloud.deployment(options=options, replicas=2)
    await cloud.declare(cloud.target(), cloud.model(), few)
    await cloud.until_ready("Deployment/wine")
    detail = (await cloud.get("Deployment/wine")).status.detail["endpoint"]
    assert isinstance(detail, dict)
    assert detail["dollarsAnHour"] == 0.23


async def test_an_endpoint_goes_when_its_time_is_over_and_stays_away(cloud: Cloud) -> None:
    """It is declared still; windlass sync, or an edit, has it again."""
    short = cloud.deployment(options={"ttl": "2h"})
    await cloud.declare(cloud.target(), cloud.model(), short)
    await cloud.until_ready("Deployment/wine")
    await cloud.after(hours=6)
    ready = await cloud.ready("Deployment/wine")
    assert ready.reason == "CostLimitExceeded"
    assert "ttl of 2h is over" in ready.message
    assert cloud.names("endpoint") == []
    assert cloud.calls()["CreateEndpoint"] == 1
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment(options={"ttl": "9h"}))
    await cloud.until_ready("Deployment/wine")
    assert cloud.calls()["CreateEndpoint"] == 2


async def test_an_endpoint_that_nobody_asks_is_taken_down(cloud: Cloud) -> None:
    """CloudWatch has no invocation for an hour."""
    idle = cloud.deployment(options={"idleStop": {"after": "1h"}})
    await cloud.declare(cloud.target(), cloud.model(), idle)
    await cloud.after(hours=3)
    ready = await cloud.ready("Deployment/wine")
    assert ready.reason == "CostLimitExceeded"
    assert "nobody has asked it for 1h" in ready.message
    assert cloud.names("endpoint") == []


async def test_an_endpoint_that_is_asked_stays(cloud: Cloud) -> None:
    """Invocations in CloudWatch, of any variant; and an hour after the last one it goes."""
    variants: JsonValue = [{"name": "first"}, {"name": "second"}]
    idle = cloud.deployment(options={"idleStop": {"after": "1h"}, "variants": variants})
    await cloud.declare(cloud.target(), cloud.model(), idle)
    for _ in range(8):
        await cloud.after(minutes=30)
        async with cloud.aws.client("cloudwatch") as cloudwatch:
            asked = {
                "MetricName": "Invocations",
                "Dimensions": [
                    {"Name": "EndpointName", "Value": "wine"},
                    {"Name": "VariantName", "Value": "second"},
                ],
                "Timestamp": cloud.now,
                "Value": 1.0,
            }
            await cloudwatch.put_metric_data(Namespace="AWS/SageMaker", MetricData=[asked])
    assert (await cloud.ready("Deployment/wine")).status == "True"
    assert cloud.names("endpoint") == ["wine"]
    await cloud.after(hours=3)
    assert cloud.names("endpoint") == []


@pytest.mark.parametrize("limit", [{"ttl": "2h"}, {"idleStop": {"after": "2h"}}])
async def test_a_limit_that_is_declared_no_longer_has_no_effect(
    cloud: Cloud, limit: dict[str, JsonValue]
) -> None:
    """It was on the endpoint; taking it from the spec takes it from there."""
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment(options=limit))
    await cloud.until_ready("Deployment/wine")
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment())
    await cloud.after(hours=9)
    assert (await cloud.ready("Deployment/wine")).status == "True"
    assert cloud.aws.calls.done()["CreateEndpoint"] == 1
    assert cloud.aws.calls.done()["UpdateEndpoint"] == 0


async def test_a_later_ttl_counts_from_the_making_too(cloud: Cloud) -> None:
    """Longer, and in place; then it goes."""
    for ttl in ("2h", "6h"):
        timed = cloud.deployment(options={"ttl": ttl})
        await cloud.declare(cloud.target(), cloud.model(), timed)
        await cloud.until_ready("Deployment/wine")
    await cloud.after(hours=5)
    assert cloud.names("endpoint") == ["wine"]
    await cloud.after(hours=2)
    assert cloud.names("endpoint") == []


async def test_a_plan_tells_the_cost_and_what_would_remain(cloud: Cloud) -> None:
    """In the adapter's words, for ``windlass plan``."""
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment(replicas=2))
    await cloud.until_ready("Deployment/wine")
    found = await cloud.get("Deployment/wine")
    adapter = (await cloud.target_of(found)).adapter
    assert isinstance(adapter, Estimates)
    wanted = [record.wanted for record in found.externals]
    cost = "at most 0.23 $ an hour (2 x ml.m5.large), twice that during an update"
    assert adapter.cost(wanted) == cost
    assert adapter.remains(wanted, orphaned=False) == ""
    left = adapter.remains(wanted, orphaned=True)
    assert "endpoint wine" in left
    assert cost in left


async def test_what_nobody_declares_is_reported_and_what_is_free_is_collected(
    cloud: Cloud,
) -> None:
    """An endpoint that was left behind costs money: said, and not removed."""
    kept = cloud.document("Deployment", "wine", {"model": "wine", "target": "cloud"})
    await cloud.declare(cloud.target(), cloud.model(), kept)
    await cloud.until_ready("Deployment/wine")
    owned = await cloud.get("Deployment/wine")
    others = [o for o in await cloud.store.list() if o.key != owned.key]
    metrics = Metrics()
    orphans = Orphans(Only(cloud.store, others), cloud.targets, metrics)
    assert await orphans.look() == [], "younger than the grace"
    cloud.now += timedelta(hours=2)
    ((target, orphan),) = await orphans.look()
    assert (target, orphan.role, orphan.name) == ("default/cloud", "endpoint", "wine")
    assert orphan.cost == "0.115 $ an hour"
    assert orphan.ref == "Deployment/default/wine"
    assert b'windlass_orphans{target="default/cloud"} 1.0' in metrics.render()
    assert len(cloud.names("endpoint-config")) == len(cloud.names("model")) == 1
    async with cloud.aws.client("sagemaker") as sagemaker:
        await sagemaker.delete_endpoint(EndpointName="wine")
    cloud.now += timedelta(hours=2)
    assert await orphans.look() == []
    assert cloud.names("endpoint-config") == cloud.names("model") == []


async def test_everything_that_is_made_carries_our_tags(cloud: Cloud) -> None:
    """Bills and the policy go by them; scaling targets too."""
    autoscaling: dict[str, JsonValue] = {"min": 1, "max": 2, "target": 5, "metric": "concurrency"}
    await cloud.declare(
        cloud.target(), cloud.model(), cloud.deployment(autoscaling=dict(autoscaling))
    )
    await cloud.until_ready("Deployment/wine")
    for kind in ("model", "endpoint-config", "endpoint", "scalable-target"):
        (made,) = cloud.held(kind)
        assert made.tags["windlass:ref"] == "Deployment/default/wine", kind


async def test_what_is_left_behind_goes_only_when_it_is_named(cloud: Cloud) -> None:
    """Endpoint and running jobs, with what each costs an hour; named, they are ended."""
    script = {"train.py": b"print('loss: 1')\n"}
    run: dict[str, JsonValue] = {"entrypoint": "train.py", "target": "cloud", "timeLimit": "9h"}
    search = run | {
        "ranges": {"rate": {"min": 0.001, "max": 0.1}},
        "objective": {"metric": "loss", "regex": "loss: ([0-9.]+)"},
        "maxJobs": 4,
        "maxParallel": 2,
        "options": {"instances": 3},
    }
    cloud.aws.account.durations["training.Training"] = 1e6
    await cloud.declare(
        cloud.target(),
        cloud.model(),
        cloud.deployment(replicas=2),
        cloud.document("Job", "train", run, script),
        cloud.document("Sweep", "search", search, script),
    )
    await cloud.until_ready("Deployment/wine")
    cloud.now += timedelta(hours=2)
    left = [o for o in await cloud.store.list() if o.key.kind in ("Target", "Model")]
    orphans = Orphans(Only(cloud.store, left), cloud.targets, Metrics())
    report = await orphans.find()
    found = {orphan.role: orphan for _, orphan in report.left if not orphan.free}
    assert {role: orphan.hourly for role, orphan in found.items()} == {
        "endpoint": 0.23,
        "run": 0.115,
        "sweep": 0.69,
    }
    assert found["run"].ref == "Job/default/train"
    assert cloud.calls()["StopTrainingJob"] == cloud.calls()["DeleteEndpoint"] == 0
    with pytest.raises(LookupError):
        await orphans.remove("default/cloud", "endpoint", "another")
    for role, orphan in found.items():
        await orphans.remove("default/cloud", role, orphan.name)
    cloud.now += timedelta(minutes=5)
    report = await orphans.find()
    assert [orphan.role for _, orphan in report.left if not orphan.free] == []
    assert cloud.names("endpoint") == []
    assert {job.status for job in cloud.held("training-job")} == {"Stopped"}
    cloud.aws.monitor.check()


async def test_what_has_an_owner_again_is_not_removed(cloud: Cloud) -> None:
    """Between the list and the removal it was declared: no orphan of that name is there."""
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment())
    await cloud.until_ready("Deployment/wine")
    cloud.now += timedelta(hours=2)
    with pytest.raises(LookupError):
        orphans = Orphans(cloud.store, cloud.targets, Metrics())
        await orphans.remove("default/cloud", "endpoint", "wine")
    assert cloud.names("endpoint") == ["wine"]


async def test_a_target_that_cannot_be_asked_is_named(cloud: Cloud) -> None:
    """And is not taken for one that holds nothing."""
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment())
    await cloud.until_ready("Deployment/wine")
    cloud.aws.expire_credentials()
    cloud.now += timedelta(hours=2)
    report = await Orphans(cloud.store, cloud.targets, Metrics()).find()
    assert report.left == ()
    assert "ExpiredToken" in report.unasked["default/cloud"]
