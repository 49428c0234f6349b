"""Lambda fronts, roles and objects that nobody declares: told, collected, and whose they are."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import JsonValue

from rig.cloud import Cloud, Only, bucket_of, cloud_in
from rig.cloud_stories import RUNS, run_of
from windlass.metrics import Metrics
from windlass.orphans import Orphans
from windlass_adapters.base import Orphan
from windlass_adapters.sagemaker import storage

FRONT: dict[str, JsonValue] = {"expose": "lambda"}


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    """A kernel with rates, on an account that holds nothing but a bucket."""
    rates = tmp_path / "rates.yaml"
    rates.write_text("ml.m5.large: 0.115\n")
    async with cloud_in(tmp_path, wire=False, rates=str(rates)) as world:
        yield world


def keys(cloud: Cloud) -> list[str]:
    """What the bucket holds."""
    return cloud.aws.others.keys(bucket_of(cloud.aws))


def functions(cloud: Cloud) -> list[str]:
    """The names of all functions."""
    return [arn.rpartition(":")[2] for arn in cloud.aws.others.functions()]


async def forget(cloud: Cloud, *kinds: str) -> Orphans:
    """From now on nobody declares objects of these kinds, and they are old."""
    cloud.now += timedelta(hours=2)
    kept = [o for o in await cloud.store.list() if o.key.kind not in kinds]
    return Orphans(Only(cloud.store, kept), cloud.targets, Metrics())


async def found(orphans: Orphans) -> dict[str, Orphan]:
    """What is left, by role; of several of one role, the last."""
    report = await orphans.find()
    assert not report.unasked
    return {orphan.role: orphan for _, orphan in report.left}


async def aws(cloud: Cloud, service: str, operation: str, **arguments: object) -> None:
    """Somebody does something in the account."""
    await cloud.aws.in_process().call(service, operation, arguments)


async def test_every_object_that_is_sent_says_whose_it_is(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Artifacts at once and in parts, programs and inputs of Jobs: with our three tags."""
    monkeypatch.setattr(storage, "PART", 5 << 20)
    cloud.aws.plan("transform", files={"data.csv.out": b"1"}, times=9)
    runs = [run_of(cloud, kind, kind) for kind in RUNS]
    large = cloud.model("large", os.urandom(6 << 20))  # random, since it is sent compressed
    await cloud.declare(cloud.target(), cloud.model(), large, cloud.deployment(), *runs)
    await cloud.until_ready("Deployment/wine", "Model/large", *(f"Job/{kind}" for kind in RUNS))
    held = cloud.aws.others.tags(bucket_of(cloud.aws))
    sent = {key: tags for key, tags in held.items() if "/output/" not in key}
    assert len(sent) == 5, sorted(sent)
    assert {tags["windlass:ref"] for tags in sent.values()} == {
        "Model/default/wine",
        "Model/default/large",
        *(f"Job/default/{kind}" for kind in RUNS),
    }
    for key, tags in sent.items():
        object_ = await cloud.get("/".join(tags["windlass:ref"].split("/")[::2]))
        assert tags["windlass:owner"] == object_.uid, key
        assert tags["windlass:instance"] == cloud.store.install, key


@pytest.mark.parametrize("kind", RUNS)
async def test_a_job_that_was_never_begun_leaves_nothing(cloud: Cloud, kind: str) -> None:
    """Everything is uploaded and there is no quota; then the Job goes."""
    cloud.aws.account.training_quota["ml.m5.large"] = 0
    for job in ("processing-job", "transform-job"):
        cloud.aws.account.batch_quota[job, "ml.m5.large"] = 0
    await cloud.declare(cloud.target(), cloud.model(), run_of(cloud, kind))
    await cloud.after(minutes=10)
    assert (await cloud.ready("Job/run")).reason == "WaitingForExternal"
    assert [key for key in keys(cloud) if key.startswith("job/")]
    await cloud.declare(cloud.target())
    await cloud.until_gone("Job/run")
    await cloud.until_gone("Model/wine")
    assert keys(cloud) == []
    assert cloud.names("model") == []


async def test_what_an_earlier_run_has_read_goes_with_the_next(cloud: Cloud) -> None:
    """One program is there at a time, and none when the Job has gone; results stay."""
    await cloud.declare(cloud.target(), run_of(cloud, "training"))
    await cloud.until_ready("Job/run")
    first = [key for key in keys(cloud) if key.endswith("sourcedir.tar.gz")]
    edited = cloud.document(
        "Job",
        "run",
        {"entrypoint": "run.py", "target": "cloud", "timeLimit": "1h"},
        {"run.py": b"print(2)\n"},
    )
    await cloud.declare(cloud.target(), edited)
    await cloud.until_ready("Job/run")
    second = [key for key in keys(cloud) if key.endswith("sourcedir.tar.gz")]
    assert len(first) == len(second) == 1
    assert first != second
    await cloud.declare(cloud.target())
    await cloud.until_gone("Job/run")
    assert not [key for key in keys(cloud) if "/output/" not in key]


async def test_a_front_goes_by_itself_when_its_endpoint_has_gone(cloud: Cloud) -> None:
    """While that is there it may have clients: told, with what is kept warm, and left alone."""
    options = FRONT | {"front": {"concurrency": 2}}
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment(options=options))
    await cloud.until_ready("Deployment/wine")
    orphans = Orphans(cloud.store, cloud.targets, Metrics())
    assert await found(orphans) == {}
    orphans = await forget(cloud, "Deployment")
    front = (await found(orphans))["function"]
    assert (front.name, front.ref) == ("wine-front", "Deployment/default/wine")
    assert "in front of endpoint wine; 2 provisioned" in front.cost
    assert front.hourly is None
    await orphans.look()
    assert functions(cloud) == ["wine-front"]
    await orphans.remove("default/cloud", "endpoint", "wine")
    cloud.now += timedelta(minutes=5)
    assert (await found(orphans))["function"].free
    await orphans.look()
    assert functions(cloud) == []
    assert list(cloud.aws.others.roles()) == []
    cloud.aws.monitor.check()


async def test_a_front_that_somebody_names_goes_with_its_role(cloud: Cloud) -> None:
    """Though its endpoint is there still; that one stays."""
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment(options=FRONT))
    await cloud.until_ready("Deployment/wine")
    orphans = await forget(cloud, "Deployment")
    assert (await found(orphans))["function"].hourly == 0.0
    await orphans.remove("default/cloud", "function", "wine-front")
    assert functions(cloud) == []
    assert list(cloud.aws.others.roles()) == []
    assert cloud.names("endpoint") == ["wine"]


async def test_a_role_without_a_function_is_collected_where_it_is_ours(cloud: Cloud) -> None:
    """Another installation's is named like it; a living one's is in use."""
    theirs = [{"Key": "windlass:instance", "Value": "other"}]
    for name, tags in (("windlass-theirs-front", theirs), ("windlass-mine", [])):
        await aws(
            cloud, "iam", "CreateRole", RoleName=name, AssumeRolePolicyDocument="{}", Tags=tags
        )
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment(options=FRONT))
    await cloud.until_ready("Deployment/wine")
    await aws(cloud, "lambda", "DeleteFunction", FunctionName="wine-front")
    cloud.now += timedelta(hours=2)
    assert await found(Orphans(cloud.store, cloud.targets, Metrics())) == {}, "it has an owner"
    orphans = await forget(cloud, "Deployment")
    left = (await found(orphans))["role"]
    assert (left.name, left.ref, left.free) == (
        "windlass-wine-front",
        "Deployment/default/wine",
        True,
    )
    await orphans.look()
    assert sorted(cloud.aws.others.roles()) == ["windlass-mine", "windlass-theirs-front"]


async def test_a_model_that_nobody_declares_keeps_its_artifact_until_it_is_named(
    cloud: Cloud,
) -> None:
    """It may be the only copy. While an endpoint serves it, it is in use and no leftover."""
    await cloud.declare(cloud.target(), cloud.model(content=b"w" * 5000), cloud.deployment())
    await cloud.until_ready("Deployment/wine")
    orphans = await forget(cloud, "Model", "Deployment")
    assert (await found(orphans)).keys() == {"endpoint"}
    await orphans.remove("default/cloud", "endpoint", "wine")
    cloud.now += timedelta(minutes=5)
    await orphans.look()  # the config goes
    await orphans.look()  # and then its model
    left = (await found(orphans))["artifact"]
    assert left.ref == "Model/default/wine"
    assert left.cost.endswith("B in S3")
    await orphans.look()
    assert keys(cloud) == [left.name]
    await orphans.remove("default/cloud", "artifact", left.name)
    assert keys(cloud) == []
    cloud.aws.monitor.check()


async def test_what_a_running_job_reads_is_kept_while_it_runs(cloud: Cloud) -> None:
    """Nobody declares it; it costs money and is told. Its program goes when it has ended."""
    cloud.aws.account.durations["training.Training"] = 1e6
    spec: dict[str, JsonValue] = {"entrypoint": "run.py", "target": "cloud", "timeLimit": "9h"}
    await cloud.declare(cloud.target(), cloud.document("Job", "run", spec, {"run.py": b"1\n"}))
    await cloud.after(minutes=5)
    orphans = await forget(cloud, "Job")
    assert (await found(orphans)).keys() == {"run"}
    await orphans.look()
    assert len(keys(cloud)) == 1
    (name,) = cloud.names("training-job")
    await orphans.remove("default/cloud", "run", name)
    cloud.now += timedelta(minutes=10)
    assert await orphans.look() == []
    assert keys(cloud) == []


@pytest.mark.parametrize("tags", ["", "windlass:instance=other&windlass:owner={token}"])
async def test_objects_of_others_in_the_same_place_are_left_alone(cloud: Cloud, tags: str) -> None:
    """Another installation may use the bucket, or a person; names alone prove nothing."""
    token = "f" * 26
    place = f"job/default/train/{token}/train-abcdefgh"
    others: Sequence[str] = (f"{place}/sourcedir.tar.gz", "notes.txt")
    for key in others:
        await aws(
            cloud,
            "s3",
            "PutObject",
            Bucket=bucket_of(cloud.aws),
            Key=key,
            Body=b"x",
            Tagging=tags.format(token=token),
        )
    await cloud.declare(cloud.target())
    await cloud.until_ready("Target/cloud")
    orphans = await forget(cloud)
    assert await found(orphans) == {}
    await orphans.look()
    assert sorted(keys(cloud)) == sorted(others)


async def test_a_front_with_a_long_name_is_within_the_policy(cloud: Cloud) -> None:
    """It speaks of functions and roles by how their names end."""
    name = "a-very-long-name-" + "x" * 40
    deployment = cloud.deployment(name, options=FRONT)
    await cloud.declare(cloud.target(), cloud.model(), deployment)
    await cloud.until_ready(f"Deployment/{name}")
    (function,) = functions(cloud)
    (role,) = cloud.aws.others.roles()
    assert function.endswith("-front")
    assert role == f"windlass-{function}"
    assert len(role) <= 64
