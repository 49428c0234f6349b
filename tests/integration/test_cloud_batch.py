"""Processing and batch transform: Jobs that are no training, and as truthful."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import JsonValue, ValidationError

from rig.cloud import Cloud, Only, bucket_of, cloud_in
from rig.sagemaker.shapes import Json
from windlass.metrics import Metrics
from windlass.orphans import Orphans
from windlass.store.base import Document
from windlass_adapters.base import Estimates
from windlass_adapters.sagemaker.joboptions import JobOptions
from windlass_adapters.sagemaker.jobs import START
from windlass_adapters.sagemaker.processing import start_script, unpacking
from windlass_schemas.job import JobSpec

SCRIPT = b"print('cleaned')\n"


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    """A kernel on an account that holds nothing."""
    async with cloud_in(tmp_path) as world:
        yield world


def clean(cloud: Cloud, options: dict[str, JsonValue] | None = None, **spec: JsonValue) -> Document:
    """A script that prepares data."""
    given: dict[str, JsonValue] = {
        "entrypoint": "clean.py",
        "files": ["lib.py"],
        "inputs": {"wines": {"file": "wines.csv"}},
        "outputs": {"table": "tables/clean.csv"},
        "params": {"share": 0.5},
        "target": "cloud",
        "timeLimit": "1h",
        "options": {"type": "processing", **(options or {})},
    }
    files = {"clean.py": SCRIPT, "lib.py": b"", "wines.csv": b"1,2\n"}
    return cloud.document("Job", "clean", given | spec, files)


def predict(
    cloud: Cloud, options: dict[str, JsonValue] | None = None, **spec: JsonValue
) -> Document:
    """The Model ``wine`` applied to a file."""
    given: dict[str, JsonValue] = {
        "model": "wine",
        "inputs": {"wines": {"file": "wines.csv"}},
        "outputs": {"answers": "output/wines.csv.out"},
        "target": "cloud",
        "timeLimit": "1h",
        "options": options or {},
    }
    return cloud.document("Job", "predict", given | spec, {"wines.csv": b"1,2\n"})


def asked(cloud: Cloud, operation: str) -> list[Json]:
    """The requests of an operation that had an effect."""
    return [c.request for c in cloud.aws.calls.log if c.operation == operation and not c.error]


def leave(cloud: Cloud, *names: str, times: int = 1) -> None:
    """The next transforms make these files."""
    files = dict.fromkeys(names or ("wines.csv.out",), b"3\n")
    cloud.aws.plan("transform", files=files, times=times)


async def test_a_script_is_processed_once_with_all_that_it_names(cloud: Cloud) -> None:
    """Image, archive, inputs, outputs, machines and network; a finished Job stays finished."""
    vpc: JsonValue = {"subnets": ["subnet-1"], "securityGroups": ["sg-1"]}
    options: dict[str, JsonValue] = {
        "instanceType": "ml.m5.xlarge",
        "instances": 2,
        "volume": 50,
        "vpc": vpc,
        "isolated": True,
        "kmsKey": "alias/data",
        "channels": {"more": "s3://lake/wines/"},
        "shard": True,
    }
    await cloud.declare(cloud.target(), clean(cloud, options, env={"LOGLEVEL": "debug"}))
    await cloud.until_ready("Job/clean")
    await cloud.after(hours=6)
    (made,) = asked(cloud, "CreateProcessingJob")
    assert made["ProcessingResources"]["ClusterConfig"] == {
        "InstanceType": "ml.m5.xlarge",
        "InstanceCount": 2,
        "VolumeSizeInGB": 50,
        "VolumeKmsKeyId": "alias/data",
    }
    assert made["NetworkConfig"] == {
        "EnableNetworkIsolation": True,
        "VpcConfig": {"Subnets": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
    }
    assert made["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600}
    assert made["Environment"] == {"LOGLEVEL": "debug"}
    inputs = {given["InputName"]: given["S3Input"] for given in made["ProcessingInputs"]}
    assert inputs["windlass"]["S3Uri"].endswith("/sourcedir.tar.gz")
    assert inputs["wines"]["S3Uri"].endswith("/wines.csv")
    assert inputs["more"]["S3Uri"] == "s3://lake/wines/"
    assert inputs["more"]["S3DataDistributionType"] == "ShardedByS3Key"
    (output,) = made["ProcessingOutputConfig"]["Outputs"]
    found = (await cloud.get("Job/clean")).status.outputs["table"]
    assert found.url == f"{output['S3Output']['S3Uri']}/tables/clean.csv"
    (tags,) = [one.tags for one in cloud.held("processing-job")]
    assert tags["windlass:ref"] == "Job/default/clean"
    assert cloud.aws.monitor.violations == []


async def test_the_archive_holds_the_program_and_what_starts_it(cloud: Cloud) -> None:
    """By path, with the params in the start script; the entrypoint fits into AWS's 256."""
    await cloud.declare(cloud.target(), clean(cloud))
    await cloud.until_ready("Job/clean")
    (made,) = asked(cloud, "CreateProcessingJob")
    assert all(len(word) <= 256 for word in made["AppSpecification"]["ContainerEntrypoint"])
    url = next(i for i in made["ProcessingInputs"] if i["InputName"] == "windlass")["S3Input"]
    bucket, _, key = url["S3Uri"].removeprefix("s3://").partition("/")
    async with cloud.aws.client("s3") as s3:
        body = (await s3.get_object(Bucket=bucket, Key=key))["Body"]
        data = await body.read()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert sorted(archive.getnames()) == [START, "clean.py", "lib.py"]
        start = archive.extractfile(START)
        assert start is not None
        assert b"python3 -u ./clean.py --share 0.5 &" in start.read()


def _laid_out(root: Path, spec: JobSpec, files: dict[str, bytes]) -> list[str]:
    """What SageMaker would do before it starts the container; and then the command."""
    folder = root / "processing" / "input" / "windlass"
    folder.mkdir(parents=True)
    script = start_script(spec, {"wines": f"{root}/processing/input/wines/w.csv"}, str(root))
    with tarfile.open(folder / "sourcedir.tar.gz", "w:gz") as archive:
        for name, data in {START: script.encode(), **files}.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o755
            archive.addfile(member, io.BytesIO(data))
    return ["/bin/sh", "-c", unpacking(str(root))]


def test_a_container_finds_what_every_job_finds(tmp_path: Path) -> None:
    """Words, variables, inputs and a working directory; declared outputs are copied out."""
    spec = JobSpec.model_validate(
        {
            "command": ["sh", "run me.sh"],
            "params": {"a-b": "it's", "on": True},
            "outputs": {"said": "deep/said.txt"},
        }
    )
    program = b'mkdir deep; echo "$@" $WINDLASS_PARAM_A_B $WINDLASS_INPUT_WINES >deep/said.txt\n'
    command = _laid_out(tmp_path, spec, {"run me.sh": program})
    subprocess.run(command, check=True)
    said = (tmp_path / "processing/output/deep/said.txt").read_text()
    place = f"{tmp_path}/processing/input/wines/w.csv"
    assert said == f"--a-b it's --on true it's {place}\n"


@pytest.mark.parametrize(
    ("program", "status", "said"),
    [
        ("exit 3", 3, "the program ended with status 3"),
        ("true", 1, "OutputMissing: said.txt was not written"),
    ],
)
def test_a_container_says_why_it_failed(
    program: str, status: int, said: str, tmp_path: Path
) -> None:
    """In the file that SageMaker shows as the ExitMessage."""
    spec = JobSpec.model_validate(
        {"command": ["sh", "-c", program], "outputs": {"said": "said.txt"}}
    )
    done = subprocess.run(_laid_out(tmp_path, spec, {}), check=False)
    assert done.returncode == status
    assert (tmp_path / "output" / "message").read_text() == said


def test_a_container_that_is_stopped_tells_its_program(tmp_path: Path) -> None:
    """TERM reaches the program, and what it says at its end counts."""
    waits = "trap 'exit 7' TERM; : >started; while :; do sleep 0.05; done"
    spec = JobSpec.model_validate({"command": ["sh", "-c", waits]})
    with subprocess.Popen(_laid_out(tmp_path, spec, {})) as process:
        while not (tmp_path / "processing/work/started").exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait() == 7


@pytest.mark.parametrize(
    ("how", "reason", "said"),
    [
        (
            {"fail": "AlgorithmError: See job logs", "said": "the program ended with status 3"},
            "Failed",
            "status 3",
        ),
        (
            {
                "fail": "AlgorithmError: x",
                "said": "OutputMissing: tables/clean.csv was not written",
            },
            "OutputMissing",
            "tables/clean.csv was not written; write it",
        ),
        ({"seconds": 7200.0}, "TimeLimitExceeded", "timeLimit"),
        ({"fail": "ClientError: no such image"}, "Failed", "no such image"),
    ],
)
async def test_what_a_failed_processing_job_says(
    cloud: Cloud, how: dict[str, str], reason: str, said: str
) -> None:
    """The container's own words before AWS's, and no second attempt."""
    cloud.aws.plan("processing", **how)
    await cloud.declare(cloud.target(), clean(cloud))
    await cloud.after(hours=3)
    ready = await cloud.ready("Job/clean")
    assert ready.reason == reason
    assert said in ready.message
    assert cloud.calls()["CreateProcessingJob"] == 1


@pytest.mark.parametrize("kind", ["processing", "transform"])
async def test_want_of_capacity_is_no_attempt(cloud: Cloud, kind: str) -> None:
    """Another attempt, though retries is 0."""
    cloud.aws.plan(kind, fail="CapacityError: Unable to provision requested ML compute capacity")
    leave(cloud)
    name = "clean" if kind == "processing" else "predict"
    document = clean(cloud) if kind == "processing" else predict(cloud)
    await cloud.declare(cloud.target(), cloud.model(), document)
    await cloud.until_ready(f"Job/{name}")
    assert cloud.calls()[f"Create{kind.capitalize()}Job"] == 2


@pytest.mark.parametrize("kind", ["processing", "transform"])
async def test_a_quota_is_waited_for_with_its_numbers(cloud: Cloud, kind: str) -> None:
    """Nothing has failed; it begins when there is room."""
    cloud.aws.account.batch_quota[f"{kind}-job", "ml.m5.large"] = 0
    name = "clean" if kind == "processing" else "predict"
    leave(cloud)
    document = clean(cloud) if kind == "processing" else predict(cloud)
    await cloud.declare(cloud.target(), cloud.model(), document)
    await cloud.after(minutes=20)
    ready = await cloud.ready(f"Job/{name}")
    assert ready.reason == "WaitingForExternal"
    assert "0 Instances" in ready.message
    cloud.aws.account.batch_quota.clear()
    await cloud.until_ready(f"Job/{name}")


async def test_a_model_is_applied_once_with_all_that_is_said(cloud: Cloud) -> None:
    """Artifact, model and job in this order; each field of the options reaches AWS."""
    how: JsonValue = {
        "contentType": "text/csv",
        "accept": "text/csv",
        "split": "line",
        "strategy": "multi",
        "assemble": "line",
        "maxPayload": 10,
        "maxConcurrent": 4,
        "timeout": "30s",
        "retries": 1,
        "gzip": True,
        "inputFilter": "$[1:]",
        "outputFilter": "$",
        "join": True,
    }
    options: dict[str, JsonValue] = {"transform": how, "instances": 2, "kmsKey": "alias/data"}
    leave(cloud)
    await cloud.declare(cloud.target(), cloud.model(), predict(cloud, options, env={"A": "b"}))
    await cloud.until_ready("Job/predict")
    await cloud.after(hours=6)
    (made,) = asked(cloud, "CreateTransformJob")
    assert made["TransformInput"]["SplitType"] == "Line"
    assert made["TransformInput"]["ContentType"] == "text/csv"
    assert made["TransformInput"]["CompressionType"] == "Gzip"
    assert made["BatchStrategy"] == "MultiRecord"
    assert (made["MaxPayloadInMB"], made["MaxConcurrentTransforms"]) == (10, 4)
    assert made["ModelClientConfig"] == {
        "InvocationsTimeoutInSeconds": 30,
        "InvocationsMaxRetries": 1,
    }
    assert made["DataProcessing"] == {
        "JoinSource": "Input",
        "InputFilter": "$[1:]",
        "OutputFilter": "$",
    }
    output = made["TransformOutput"]
    assert (output["Accept"], output["AssembleWith"]) == ("text/csv", "Line")
    assert made["TransformResources"]["InstanceCount"] == 2
    assert made["Environment"] == {"A": "b"}
    (model,) = asked(cloud, "CreateModel")
    assert made["ModelName"] == model["ModelName"]
    found = (await cloud.get("Job/predict")).status.outputs["answers"]
    assert found.url == f"{output['S3OutputPath']}/wines.csv.out"
    assert cloud.aws.monitor.violations == []


async def test_all_that_a_transform_makes_feeds_a_job(cloud: Cloud) -> None:
    """``output`` is the folder; a later Job has it as a channel."""
    leave(cloud, "a.csv.out", "b.csv.out")
    options: dict[str, JsonValue] = {"channels": {"wines": "s3://lake/wines/"}}
    predicting = predict(cloud, options, inputs={}, outputs={"all": "output"})
    taken: JsonValue = {"answers": {"job": {"name": "predict", "output": "all"}}}
    await cloud.declare(cloud.target(), cloud.model(), predicting, clean(cloud, inputs=taken))
    await cloud.until_ready("Job/clean")
    (made,) = asked(cloud, "CreateTransformJob")
    place = made["TransformOutput"]["S3OutputPath"]
    assert made["TransformInput"]["DataSource"]["S3DataSource"]["S3Uri"] == "s3://lake/wines/"
    inputs = asked(cloud, "CreateProcessingJob")[0]["ProcessingInputs"]
    (url,) = [i["S3Input"]["S3Uri"] for i in inputs if i["InputName"] == "answers"]
    assert url == f"{place}/"


async def test_an_output_that_is_not_there_is_missing(cloud: Cloud) -> None:
    """Completed at AWS is not enough: the file was named wrongly."""
    leave(cloud, "other.out")
    await cloud.declare(cloud.target(), cloud.model(), predict(cloud))
    await cloud.after(minutes=30)
    ready = await cloud.ready("Job/predict")
    assert ready.reason == "OutputMissing"
    assert "output/wines.csv.out" in ready.message


async def test_a_transform_that_takes_too_long_is_stopped(cloud: Cloud) -> None:
    """AWS has no limit for one. Stopped once, said so, and not run again."""
    cloud.aws.plan("transform", seconds=86_400)
    await cloud.declare(cloud.target(), cloud.model(), predict(cloud, timeLimit="30m"))
    await cloud.after(hours=3)
    ready = await cloud.ready("Job/predict")
    assert (ready.status, ready.reason) == ("False", "TimeLimitExceeded")
    assert cloud.aws.calls.done()["StopTransformJob"] == 1
    assert cloud.aws.calls.done()["CreateTransformJob"] == 1


async def test_a_new_model_is_a_new_run_and_the_old_one_goes(cloud: Cloud) -> None:
    """One model is left, and none when the Job goes; what was made stays in S3."""
    leave(cloud, times=2)
    await cloud.declare(cloud.target(), cloud.model(), predict(cloud))
    await cloud.until_ready("Job/predict")
    await cloud.declare(cloud.target(), cloud.model(content=b"better"), predict(cloud))
    await cloud.until_ready("Model/wine", "Job/predict")
    await cloud.after(minutes=30)
    assert cloud.aws.calls.done()["CreateTransformJob"] == 2
    assert len(cloud.names("model")) == 1
    await cloud.declare(cloud.target())
    await cloud.until_gone("Job/predict")
    await cloud.until_gone("Model/wine")
    assert cloud.names("model") == []
    async with cloud.aws.client("s3") as s3:
        held = (await s3.list_objects_v2(Bucket=bucket_of(cloud.aws))).get("Contents", [])
    assert [one["Key"].rpartition("/")[2] for one in held] == ["wines.csv.out"] * 2


@pytest.mark.parametrize("kind", ["processing", "transform"])
async def test_removing_a_running_job_stops_it(cloud: Cloud, kind: str) -> None:
    """And leaves nothing behind but what AWS never forgets."""
    name = "clean" if kind == "processing" else "predict"
    document = clean(cloud) if kind == "processing" else predict(cloud)
    await cloud.declare(cloud.target(), cloud.model(), document)
    await cloud.after(seconds=45)
    assert [one.status for one in cloud.held(f"{kind}-job")] == ["InProgress"]
    await cloud.declare(cloud.target())
    await cloud.until_gone(f"Job/{name}")
    await cloud.until_gone("Model/wine")
    assert cloud.aws.monitor.held() == []
    assert cloud.aws.calls.done()[f"Stop{kind.capitalize()}Job"] == 1
    left = [one.status for one in cloud.held(f"{kind}-job")]
    assert left == ([] if kind == "processing" else ["Stopped"])


async def test_a_job_that_ends_as_it_is_stopped_is_gone_soon(cloud: Cloud) -> None:
    """AWS refuses to stop what is over, in words that nobody knows."""
    await cloud.declare(cloud.target(), clean(cloud))
    await cloud.after(seconds=45)
    cloud.aws.faults.add(
        "denied", "StopProcessingJob", code="ValidationException", message="words", status=400
    )
    await cloud.declare(cloud.target())
    await cloud.after(minutes=3)
    assert cloud.names("processing-job") == []


@pytest.mark.parametrize("instance", [None, "prod"])
async def test_a_transform_declared_again_after_it_was_removed(
    tmp_path: Path, instance: str | None
) -> None:
    """Its name may be taken for good. A stopped one is no result of the new Job; a whole one is."""
    async with cloud_in(tmp_path, instance=instance) as cloud:
        leave(cloud, times=9)
        for wait, created in ((45, 1), (3600, 2), (3600, 2 if instance else 3)):
            await cloud.declare(cloud.target(), cloud.model(), predict(cloud))
            await cloud.after(seconds=wait)
            if wait > 60:
                await cloud.until_ready("Job/predict")
            assert cloud.aws.calls.done()["CreateTransformJob"] == created
            await cloud.declare(cloud.target(), cloud.model())
            await cloud.until_gone("Job/predict")


@pytest.mark.parametrize(
    ("options", "spec", "said"),
    [
        ({"type": "processing", "spot": {"maxWait": "2h"}}, {}, "spec.options.spot"),
        ({"type": "processing", "metrics": {"a": "(b)"}}, {}, "spec.options.metrics"),
        ({"type": "processing"}, {"timeLimit": "10d"}, "9d at most"),
        ({"type": "processing"}, {"outputs": {"a": "a*b"}}, "spec.outputs.a"),
        ({"type": "processing"}, {"env": {"A": "x" * 257}}, "spec.env.A"),
        ({"transform": {"split": "line"}}, {}, "spec.options.transform"),
    ],
)
async def test_what_cannot_be_is_refused(
    cloud: Cloud, options: dict[str, JsonValue], spec: dict[str, JsonValue], said: str
) -> None:
    """Never accepted and ignored."""
    await cloud.declare(cloud.target(), clean(cloud, **spec, options=options))
    await cloud.after(minutes=1)
    ready = await cloud.ready("Job/clean")
    assert ready.reason == "InvalidSpec"
    assert said in ready.message
    assert cloud.aws.calls.mutations() == []


@pytest.mark.parametrize(
    ("options", "spec", "said"),
    [
        ({"spot": {"maxWait": "2h"}}, {}, "spec.options.spot"),
        ({"type": "processing"}, {}, "spec.options.type"),
        ({"channels": {"a": "s3://a/b"}}, {}, "exactly one input"),
        ({}, {"outputs": {"a": "wines.csv.out"}}, "write output for all of it"),
        ({}, {"timeLimit": None}, "spec.timeLimit"),
    ],
)
async def test_what_a_transform_cannot_be_is_refused(
    cloud: Cloud, options: dict[str, JsonValue], spec: dict[str, JsonValue], said: str
) -> None:
    """Never accepted and ignored."""
    await cloud.declare(cloud.target(), cloud.model(), predict(cloud, options, **spec))
    await cloud.after(minutes=5)
    ready = await cloud.ready("Job/predict")
    assert ready.reason == "InvalidSpec"
    assert said in ready.message
    assert cloud.calls()["CreateTransformJob"] == 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"strategy": "multi"}, "strategy needs split"),
        ({"maxPayload": 60, "maxConcurrent": 2}, "100 MB at most"),
        ({"timeout": "2h"}, "1h at most"),
    ],
)
def test_options_that_aws_would_refuse_are_refused_before(
    given: dict[str, JsonValue], said: str
) -> None:
    """With the document, long before a job."""
    with pytest.raises(ValidationError, match=said):
        JobOptions.model_validate({"transform": given})


async def test_a_running_job_of_nobody_is_an_orphan_with_its_cost(tmp_path: Path) -> None:
    """Search does not know such jobs; tags and lists do. What has ended is none."""
    rates = tmp_path / "rates.yaml"
    rates.write_text("ml.m5.large: 0.1\n")
    async with cloud_in(tmp_path, rates=str(rates)) as cloud:
        cloud.aws.plan("processing", seconds=86_400)
        cloud.aws.plan("transform", seconds=86_400)
        jobs = (clean(cloud, {"instances": 2}, timeLimit="2d"), predict(cloud, timeLimit="2d"))
        await cloud.declare(cloud.target(), cloud.model(), *jobs)
        await cloud.after(minutes=5)
        cloud.now += timedelta(hours=2)
        kept = [o for o in await cloud.store.list() if o.key.kind != "Job"]
        orphans = Orphans(Only(cloud.store, kept), cloud.targets, Metrics())
        found = {o.role: o for _, o in await orphans.look()}
        assert {role: o.cost for role, o in found.items()} == {
            "processing": "0.2 $ an hour",
            "transform": "0.1 $ an hour",
        }
        assert found["transform"].ref == "Job/default/predict"
        cloud.now += timedelta(days=1)
        assert await orphans.look() == []


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("processing", "at most 0.4 $ (2 x ml.m5.large for 2 h at most)"),
        ("transform", "at most 0.4 $ (2 x ml.m5.large for 2 h at most)"),
    ],
)
async def test_a_plan_tells_what_a_job_may_cost(tmp_path: Path, kind: str, said: str) -> None:
    """From the machines and the limit; what it makes stays in S3."""
    rates = tmp_path / "rates.yaml"
    rates.write_text("ml.m5.large: 0.1\n")
    async with cloud_in(tmp_path, rates=str(rates)) as cloud:
        make = clean if kind == "processing" else predict
        leave(cloud)
        await cloud.declare(
            cloud.target(), cloud.model(), make(cloud, {"instances": 2}, timeLimit="2h")
        )
        name = "Job/clean" if kind == "processing" else "Job/predict"
        await cloud.until_ready(name)
        found = await cloud.get(name)
        adapter = (await cloud.target_of(found)).adapter
        assert isinstance(adapter, Estimates)
        wanted = [record.wanted for record in found.externals]
        assert adapter.cost(wanted) == said
        assert adapter.remains(wanted, orphaned=False).startswith("its outputs stay in S3 below ")
