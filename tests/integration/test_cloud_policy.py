"""The shipped IAM policy is enough for everything that Windlass does, and for nothing more."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import JsonValue

from rig.cloud import IMAGE, ROLE, Cloud, bucket_of, cloud_in
from rig.cloud_stories import LIFE, run_of, tell
from rig.sagemaker.runtime import Answer
from rig.sagemaker.samples import make_endpoint
from windlass.api.inference import serving
from windlass.api.logs import latest_run
from windlass.metrics import Metrics
from windlass.orphans import Orphans
from windlass_adapters.base import Infers, ReadsLogs
from windlass_adapters.sagemaker import fronted, storage

POLICY = Path(__file__).resolve().parents[2] / "docker" / "iam" / "sagemaker.json"


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    """A kernel that may do what the policy allows."""
    async with cloud_in(tmp_path, instance="prod") as world:
        world.aws.iam.enforce(
            POLICY,
            region=world.aws.region,
            account=world.aws.account.number,
            instance="prod",
            role=ROLE,
            bucket=bucket_of(world.aws),
        )
        yield world


async def test_all_that_is_done_is_allowed_and_all_that_is_allowed_is_done(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing action is denied here, and one too many is named."""
    await tell(cloud, *LIFE)
    await _train_and_search(cloud)
    await _register(cloud)
    await _ask(cloud)
    await _watch_alarms(cloud)
    await _front(cloud, monkeypatch)
    await _collect(cloud)
    monkeypatch.setattr(storage, "PART", 5 << 20)
    await _upload_in_parts(cloud)
    assert cloud.aws.iam.denied == []
    assert cloud.aws.iam.unused() == []
    cloud.aws.monitor.check()


async def _front(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function in front of an endpoint: made, changed in all its parts, idle, and gone."""
    options: dict[str, JsonValue] = {"expose": "lambda"}
    fronts: tuple[JsonValue, ...] = ({"concurrency": 2}, {"maxBody": 1000})
    for front in fronts:
        options["front"] = front
        await cloud.declare(cloud.target(), cloud.model(), cloud.deployment(options=options))
        await cloud.after(minutes=10)
        await cloud.until_ready("Deployment/wine")
    monkeypatch.setattr(fronted, "PROGRAM", fronted.PROGRAM + "\n")
    options["idleStop"] = {"after": "1h"}
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment(options=options))
    await cloud.after(hours=2)
    await cloud.declare(cloud.target())
    await cloud.until_gone("Deployment/wine")
    await cloud.until_gone("Model/wine")


async def _collect(cloud: Cloud) -> None:
    """What nobody declares: a model, and an object in S3."""
    cloud.aws.iam.statements, held = [], cloud.aws.iam.statements
    async with cloud.aws.client("s3") as s3:
        await s3.put_object(
            Bucket=bucket_of(cloud.aws),
            Key="job/default/old/token/old-abcdefgh/sourcedir.tar.gz",
            Tagging="windlass:instance=prod&windlass:owner=token&windlass:ref=Job/default/old",
        )
    cloud.aws.iam.statements = held
    async with cloud.aws.client("sagemaker") as sagemaker:
        tags = [{"Key": "windlass:instance", "Value": "prod"}]
        await sagemaker.create_model(
            ModelName="left",
            PrimaryContainer={"Image": IMAGE},
            ExecutionRoleArn=ROLE,
            Tags=tags,
        )
    cloud.now += timedelta(hours=3)
    assert await Orphans(cloud.store, cloud.targets, Metrics()).look() == []
    assert "left" not in cloud.names("model")
    assert not any("/old/" in key for key in cloud.aws.others.keys(bucket_of(cloud.aws)))


async def _train_and_search(cloud: Cloud) -> None:
    """Jobs of all kinds to their end, and removed while they run."""
    ranges: JsonValue = {"rate": {"min": 0.001, "max": 0.1}}
    given: dict[str, JsonValue] = {
        "entrypoint": "train.py",
        "target": "cloud",
        "timeLimit": "1h",
    }
    searched = given | {
        "ranges": ranges,
        "objective": {"metric": "loss", "regex": "loss: ([0-9.]+)"},
        "maxJobs": 2,
        "maxParallel": 1,
    }
    script = {"train.py": b"print('loss: 1')\n"}
    job = cloud.document("Job", "train", given, script)
    sweep = cloud.document("Sweep", "search", searched, script)
    runs = [run_of(cloud, kind, kind) for kind in ("processing", "transform")]
    cloud.aws.plan("transform", files={"data.csv.out": b"1"}, times=9)
    for wait in (60, 3600):
        await cloud.declare(cloud.target(), cloud.model(), job, sweep, *runs)
        await cloud.after(seconds=wait)
        await _read_log(cloud)
        await cloud.declare(cloud.target())
        for name in ("Job/train", "Sweep/search", "Job/processing", "Job/transform", "Model/wine"):
            await cloud.until_gone(name)


async def _read_log(cloud: Cloud) -> None:
    """What a Job prints."""
    (name,) = [name for name in cloud.names("training-job") if name.startswith("train-")]
    group, stream = "/aws/sagemaker/TrainingJobs", f"{name}/algo-1-1700000000"
    cloud.aws.iam.statements, held = [], cloud.aws.iam.statements
    async with cloud.aws.client("logs") as logs:
        with suppress(logs.exceptions.ResourceAlreadyExistsException):
            await logs.create_log_group(logGroupName=group)
        with suppress(logs.exceptions.ResourceAlreadyExistsException):
            await logs.create_log_stream(logGroupName=group, logStreamName=stream)
        now = int(cloud.now.timestamp() * 1000)
        lines = [{"timestamp": now, "message": "a line"}]
        await logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=lines)
    cloud.aws.iam.statements = held
    found = await cloud.get("Job/train")
    record = latest_run(found)
    assert record is not None
    adapter = (await cloud.target_of(found)).adapter
    assert isinstance(adapter, ReadsLogs)
    assert b"a line\n" in (await adapter.read_log(record.external, "stdout", 0)).data


async def _register(cloud: Cloud) -> None:
    """A version in the registry, and its end."""
    options: JsonValue = {"register": {"approval": "Approved"}}
    await cloud.declare(cloud.target(), cloud.model(options=options))
    await cloud.until_ready("Model/wine")
    await cloud.declare(cloud.target())
    await cloud.until_gone("Model/wine")


async def _ask(cloud: Cloud) -> None:
    """An inference request."""
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment())
    await cloud.until_ready("Deployment/wine")
    cloud.aws.serve(lambda asked: Answer(b"{}"))
    found = await cloud.get("Deployment/wine")
    record = serving(found)
    assert record is not None
    adapter = (await cloud.target_of(found)).adapter
    assert isinstance(adapter, Infers)
    assert (await adapter.infer(record.external, b"{}", {})).status == 200


async def _watch_alarms(cloud: Cloud) -> None:
    """An update that an alarm may roll back."""
    async with cloud.aws.client("cloudwatch") as cloudwatch:
        cloud.aws.iam.statements, held = [], cloud.aws.iam.statements
        await cloudwatch.put_metric_alarm(
            AlarmName="latency",
            MetricName="ModelLatency",
            Namespace="AWS/SageMaker",
            Period=60,
            EvaluationPeriods=1,
            Threshold=1.0,
            ComparisonOperator="GreaterThanThreshold",
            Statistic="Average",
        )
        await cloudwatch.set_alarm_state(
            AlarmName="latency", StateValue="OK", StateReason="a test says so"
        )
        cloud.aws.iam.statements = held
    deployment = cloud.deployment(options={"updates": {"alarms": ["latency"]}})
    await cloud.declare(cloud.target(), cloud.model(content=b"better"), deployment)
    await cloud.after(minutes=15)
    await cloud.until_ready("Deployment/wine")


async def _upload_in_parts(cloud: Cloud) -> None:
    """An artifact that is too large for one request, and one of its uploads left unfinished."""
    content = os.urandom(11 << 20)  # random, since it is sent compressed
    cloud.aws.faults.add("reset", "UploadPart", skip=1)
    await cloud.declare(cloud.target(), cloud.model("large", content))
    await cloud.until_ready("Model/large")
    (record,) = (await cloud.get("Model/large")).externals
    cloud.aws.iam.statements, held = [], cloud.aws.iam.statements
    async with cloud.aws.client("s3") as s3:
        await s3.create_multipart_upload(Bucket=bucket_of(cloud.aws), Key=record.wanted.name)
    cloud.aws.iam.statements = held
    await cloud.declare(cloud.target())
    await cloud.until_gone("Model/large")


async def test_what_is_not_ours_is_out_of_reach(cloud: Cloud) -> None:
    """Even for an adapter that has gone mad: no tag of ours, no change."""
    make_endpoint(cloud.aws.foreign)
    async with cloud.aws.client("sagemaker") as sagemaker:
        for ask in (
            sagemaker.delete_endpoint(EndpointName="e"),
            sagemaker.delete_endpoint_config(EndpointConfigName="c"),
            sagemaker.delete_model(ModelName="m"),
            sagemaker.update_endpoint(EndpointName="e", EndpointConfigName="c"),
            sagemaker.create_model(ModelName="untagged", ExecutionRoleArn=ROLE),
        ):
            with pytest.raises(Exception, match="not authorized"):
                await ask
    assert [one.name for one in cloud.held("endpoint")] == ["e"]
