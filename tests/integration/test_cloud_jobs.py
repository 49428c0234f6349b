"""Jobs and Sweeps on SageMaker: trained once, searched within limits, and what they leave."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import JsonValue

from rig.cloud import Cloud, archive, cloud_in
from windlass.store.base import Document

SCRIPT = b"print('Testing Loss: 0.1')\n"
RANGES: dict[str, JsonValue] = {
    "learning_rate": {"min": 0.001, "max": 0.1},
    "batch_size": {"values": [32, 64, 128, 256, 512]},
}


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    """A kernel on an account that holds nothing."""
    async with cloud_in(tmp_path) as world:
        yield world


def job(cloud: Cloud, **spec: JsonValue) -> Document:
    """A script with one output."""
    given: dict[str, JsonValue] = {
        "entrypoint": "hpo.py",
        "target": "cloud",
        "timeLimit": "1h",
        "outputs": {"model": "model.tar.gz"},
        "options": {"channels": {"training": "s3://project5bucket98/"}},
    }
    return cloud.document("Job", "train", given | spec, {"hpo.py": SCRIPT})


def sweep(cloud: Cloud, **spec: JsonValue) -> Document:
    """Two jobs, one at a time."""
    given: dict[str, JsonValue] = {
        "entrypoint": "hpo.py",
        "target": "cloud",
        "timeLimit": "1h",
        "options": {"instanceType": "ml.g4dn.xlarge"},
        "ranges": RANGES,
        "objective": {"metric": "Test Loss", "regex": "Testing Loss: ([0-9\\.]+)"},
        "maxJobs": 2,
        "maxParallel": 1,
    }
    return cloud.document("Sweep", "search", given | spec, {"hpo.py": SCRIPT})


async def test_a_script_is_trained_once_with_typed_params(cloud: Cloud) -> None:
    """The archive, the channel, and the params as JSON: their types are kept."""
    params: dict[str, JsonValue] = {"batch_size": 64, "lr": 0.0016673553502911797, "name": "a b"}
    await cloud.declare(cloud.target(), job(cloud, params=params))
    await cloud.until_ready("Job/train")
    await cloud.after(hours=6)
    (made,) = [c for c in cloud.aws.calls.log if c.operation == "CreateTrainingJob"]
    given = {k: json.loads(v) for k, v in made.request["HyperParameters"].items()}
    assert {k: given[k] for k in params} == params
    assert given["sagemaker_program"] == "hpo.py"
    assert given["sagemaker_submit_directory"].endswith("/sourcedir.tar.gz")
    (channel,) = made.request["InputDataConfig"]
    assert channel["ChannelName"] == "training"
    output = (await cloud.get("Job/train")).status.outputs["model"]
    assert output.url is not None
    assert output.url.endswith("/output/model.tar.gz")


async def test_more_machines_are_a_new_run(cloud: Cloud) -> None:
    """1, then 5: an edit starts a new job and changes none."""
    await cloud.declare(cloud.target(), job(cloud))
    await cloud.until_ready("Job/train")
    options: JsonValue = {"instances": 5}
    await cloud.declare(cloud.target(), job(cloud, options=options))
    await cloud.until_ready("Job/train")
    made = [c.request for c in cloud.aws.calls.log if c.operation == "CreateTrainingJob"]
    assert [r["ResourceConfig"]["InstanceCount"] for r in made] == [1, 5]
    assert made[0]["TrainingJobName"] != made[1]["TrainingJobName"]


async def test_a_script_that_fails_is_not_run_again_without_retries(cloud: Cloud) -> None:
    """AlgorithmError is the script's own fault; AWS's words are shown."""
    cloud.aws.plan("training", fail="AlgorithmError: exit code 1")
    await cloud.declare(cloud.target(), job(cloud))
    await cloud.after(hours=1)
    ready = await cloud.ready("Job/train")
    assert ready.reason == "Failed"
    assert "exit code 1" in ready.message
    assert cloud.calls()["CreateTrainingJob"] == 1


async def test_want_of_capacity_is_no_attempt_of_the_script(cloud: Cloud) -> None:
    """Another attempt, though retries is 0."""
    cloud.aws.plan("training", fail="CapacityError: Unable to provision requested ML compute")
    await cloud.declare(cloud.target(), job(cloud))
    await cloud.until_ready("Job/train")
    assert cloud.calls()["CreateTrainingJob"] == 2


async def test_a_stopped_job_is_no_success(cloud: Cloud) -> None:
    """Somebody stopped it in the console."""
    await cloud.declare(cloud.target(), job(cloud))
    await cloud.after(seconds=30)
    (name,) = cloud.names("training-job")
    async with cloud.aws.client("sagemaker") as sagemaker:
        await sagemaker.stop_training_job(TrainingJobName=name)
    await cloud.after(minutes=30)
    ready = await cloud.ready("Job/train")
    assert (ready.status, ready.reason) == ("False", "Interrupted")


async def test_spot_has_checkpoints_and_a_longest_wait(cloud: Cloud) -> None:
    """And both limits."""
    options: JsonValue = {"spot": {"maxWait": "2h"}}
    await cloud.declare(cloud.target(), job(cloud, options=options))
    await cloud.until_ready("Job/train")
    (made,) = [c.request for c in cloud.aws.calls.log if c.operation == "CreateTrainingJob"]
    assert made["EnableManagedSpotTraining"] is True
    assert made["StoppingCondition"] == {
        "MaxRuntimeInSeconds": 3600,
        "MaxWaitTimeInSeconds": 7200,
    }
    assert made["CheckpointConfig"]["S3Uri"].endswith("/checkpoints")


async def test_spot_without_checkpoints_keeps_none_and_a_key_encrypts(cloud: Cloud) -> None:
    """What is said has an effect."""
    options: JsonValue = {
        "spot": {"maxWait": "2h", "checkpoints": False},
        "kmsKey": "alias/data",
        "channels": {"train": "s3://lake/wines"},
        "shard": True,
    }
    await cloud.declare(cloud.target(), job(cloud, options=options))
    await cloud.until_ready("Job/train")
    (made,) = [c.request for c in cloud.aws.calls.log if c.operation == "CreateTrainingJob"]
    assert "CheckpointConfig" not in made
    assert made["OutputDataConfig"]["KmsKeyId"] == "alias/data"
    assert made["ResourceConfig"]["VolumeKmsKeyId"] == "alias/data"
    (channel,) = made["InputDataConfig"]
    assert channel["DataSource"]["S3DataSource"]["S3DataDistributionType"] == "ShardedByS3Key"


async def test_spot_machines_that_are_taken_back_are_no_failure(cloud: Cloud) -> None:
    """Interrupted, and on again: one job, one attempt, and the status says what happens."""
    steps = (
        ("Starting", 10.0),
        ("Training", 60.0),
        ("Interrupted", 300.0),
        ("Starting", 10.0),
        ("Training", 60.0),
        ("Uploading", 10.0),
    )
    cloud.aws.plan("training", steps=steps)
    options: JsonValue = {"spot": {"maxWait": "2h"}}
    await cloud.declare(cloud.target(), job(cloud, options=options))
    await cloud.after(minutes=3)
    ready = await cloud.ready("Job/train")
    assert (ready.status, ready.reason) == ("False", "Progressing")
    assert "took the spot machines back" in ready.message
    await cloud.until_ready("Job/train")
    assert cloud.calls()["CreateTrainingJob"] == 1


async def test_a_sweep_keeps_its_limits_and_its_best_params_feed_a_job(cloud: Cloud) -> None:
    """Two jobs, one at a time; the Job starts once, with typed params."""
    cloud.aws.account.objective = lambda params: float(params["learning_rate"])
    best = job(cloud, bestOf="search", params={"epochs": 2})
    await cloud.declare(cloud.target(), sweep(cloud), best)
    await cloud.until_ready("Sweep/search", "Job/train")
    (made,) = [
        c.request for c in cloud.aws.calls.log if c.operation == "CreateHyperParameterTuningJob"
    ]
    limits = made["HyperParameterTuningJobConfig"]["ResourceLimits"]
    assert limits == {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 1}
    assert len(made["HyperParameterTuningJobName"]) <= 32
    (train,) = [c.request for c in cloud.aws.calls.log if c.operation == "CreateTrainingJob"]
    given = {k: json.loads(v) for k, v in train["HyperParameters"].items()}
    assert given["epochs"] == 2
    tried = [one.body["HyperParameters"] for one in cloud.held("training-job")]
    rates = [float(each["learning_rate"]) for each in tried if "sagemaker_program" in each]
    assert given["learning_rate"] == min(rates)
    assert given["batch_size"] in (32, 64, 128, 256, 512)
    found = (await cloud.get("Sweep/search")).status.outputs["best"]
    assert json.loads(found.text or "{}")["batch_size"] == given["batch_size"]


async def test_removing_a_job_stops_it_and_then_removes_its_record(cloud: Cloud) -> None:
    """Gone means that a read says so."""
    await cloud.declare(cloud.target(), job(cloud))
    await cloud.after(seconds=30)
    await cloud.declare(cloud.target())
    await cloud.until_gone("Job/train")
    assert cloud.names("training-job") == []
    calls = cloud.calls()
    assert calls["StopTrainingJob"] >= 1
    assert calls["DeleteTrainingJob"] == 1


async def test_a_model_of_a_training_job_is_deployed_from_where_it_lies(cloud: Cloud) -> None:
    """Nothing is copied: the model's data is the job's output in S3."""
    wine = cloud.document(
        "Model",
        "wine",
        {
            "source": {"job": {"name": "train", "output": "model"}},
            "format": "pytorch",
            "target": "cloud",
        },
    )
    await cloud.declare(cloud.target(), job(cloud))
    await cloud.until_ready("Job/train")
    place = (await cloud.get("Job/train")).status.outputs["model"].url or ""
    bucket, _, key = place.removeprefix("s3://").partition("/")
    async with cloud.aws.client("s3") as s3:
        await s3.put_object(Bucket=bucket, Key=key, Body=archive(["model.pth"]))
    await cloud.declare(cloud.target(), job(cloud), wine, cloud.deployment())
    await cloud.until_ready("Deployment/wine")
    (made,) = [c.request for c in cloud.aws.calls.log if c.operation == "CreateModel"]
    url = (await cloud.get("Job/train")).status.outputs["model"].url
    assert made["PrimaryContainer"]["ModelDataUrl"] == url


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"outputs": {"model": "model.onnx"}}, "spec.outputs.model"),
        ({"python": "/usr/bin/python3"}, "spec.python"),
        ({"env": {"TOKEN": "env:TOKEN"}}, "spec.env.TOKEN"),
        ({"options": {"spot": {"maxWait": "30m"}}}, "spec.options.spot.maxWait"),
    ],
)
async def test_what_training_cannot_do_is_refused(
    cloud: Cloud, spec: dict[str, JsonValue], said: str
) -> None:
    """Never accepted and ignored."""
    await cloud.declare(cloud.target(), job(cloud, **spec))
    await cloud.after(minutes=1)
    ready = await cloud.ready("Job/train")
    assert ready.reason == "InvalidSpec"
    assert said in ready.message
