"""Models on SageMaker: what deploys, what is refused before anything is sent, and who approves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import JsonValue

from rig.cloud import Cloud, archive, bucket_of, cloud_again, cloud_in
from windlass.metrics import Metrics
from windlass.orphans import Orphans
from windlass.store.base import Document
from windlass_adapters.sagemaker import storage

MODEL_FILES = {
    "onnx": "model.onnx",
    "pytorch": "model.pth",
    "sklearn": "model.joblib",
    "tensorflow": "1/saved_model.pb",
}


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    """A kernel on an account that holds nothing."""
    async with cloud_in(tmp_path) as world:
        yield world


def packed(cloud: Cloud, format_: str, content: bytes) -> Document:
    """A Model from a ``.tar.gz`` beside its document."""
    spec: dict[str, JsonValue] = {
        "source": {"file": "model.tar.gz"},
        "format": format_,
        "target": "cloud",
    }
    return cloud.document("Model", "wine", spec, {"model.tar.gz": content})


@pytest.mark.parametrize("format_", MODEL_FILES)
async def test_an_archive_of_each_format_is_deployed(cloud: Cloud, format_: str) -> None:
    """TensorFlow, PyTorch, scikit-learn and ONNX reach Ready."""
    model = packed(cloud, format_, archive([MODEL_FILES[format_]]))
    await cloud.declare(cloud.target(), model, cloud.deployment())
    await cloud.until_ready("Deployment/wine")


@pytest.mark.parametrize("format_", MODEL_FILES)
async def test_an_archive_without_a_model_is_refused_before_anything_is_sent(
    cloud: Cloud, format_: str
) -> None:
    """The message says what is missing and what is there."""
    model = packed(cloud, format_, archive(["notes.txt"]))
    await cloud.declare(cloud.target(), model, cloud.deployment())
    await cloud.after(minutes=1)
    ready = await cloud.ready("Model/wine")
    assert ready.reason == "InvalidArtifact"
    assert "notes.txt" in ready.message
    calls = cloud.calls()
    assert calls["PutObject"] == calls["CreateModel"] == 0


@pytest.mark.parametrize(
    "content",
    [b"no archive", archive(["../escape.onnx"]), archive(["m.onnx"])[:-9]],
    ids=["no archive", "leads out", "cut off"],
)
async def test_a_bad_archive_is_refused(cloud: Cloud, content: bytes) -> None:
    """Never at deploy time."""
    await cloud.declare(cloud.target(), packed(cloud, "onnx", content))
    await cloud.after(minutes=1)
    assert (await cloud.ready("Model/wine")).reason == "InvalidArtifact"


async def test_a_large_artifact_goes_on_from_where_it_stopped(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Part by part; a daemon that dies in between sends no part twice."""
    monkeypatch.setattr(storage, "PART", 5 << 20)
    monkeypatch.setattr(storage, "UPLOAD_SLICE", -1.0)
    files = {"model.onnx": bytes(range(256)) * (12 << 12)}
    content = archive(files) + b"\0" * (11 << 20)  # archives may end in zeros
    await cloud.declare(cloud.target(), packed(cloud, "onnx", content))
    await cloud.settle()
    assert (await cloud.ready("Model/wine")).reason == "WaitingForExternal"
    await cloud.kill()
    monkeypatch.setattr(storage, "UPLOAD_SLICE", 60.0)
    await cloud.until_ready("Model/wine")
    calls = cloud.calls()
    assert calls["CreateMultipartUpload"] == calls["CompleteMultipartUpload"] == 1
    assert calls["UploadPart"] == -(-len(content) // (5 << 20))


async def cut_off(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Model whose upload has begun and is not complete."""
    monkeypatch.setattr(storage, "PART", 5 << 20)
    monkeypatch.setattr(storage, "UPLOAD_SLICE", -1.0)
    content = archive(["model.onnx"]) + b"\0" * (11 << 20)
    await cloud.declare(cloud.target(), packed(cloud, "onnx", content))
    await cloud.after(seconds=30)
    assert (await cloud.ready("Model/wine")).reason == "WaitingForExternal"
    assert len(await unfinished(cloud)) == 1


async def unfinished(cloud: Cloud) -> list[str]:
    """Keys of uploads that are not complete."""
    found = await cloud.aws.in_process().call(
        "s3", "ListMultipartUploads", {"Bucket": bucket_of(cloud.aws)}
    )
    uploads = found.get("Uploads", [])
    assert isinstance(uploads, list)
    return [upload["Key"] for upload in uploads]


@pytest.mark.parametrize("dies", [False, True])
async def test_an_upload_that_was_cut_goes_with_its_model(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    """Its parts cost money; also where the daemon has died in between."""
    await cut_off(cloud, monkeypatch)
    if dies:
        await cloud.kill()
    await cloud.declare(cloud.target())
    await cloud.until_gone("Model/wine")
    assert await unfinished(cloud) == []
    assert cloud.calls()["AbortMultipartUpload"] == 1


async def test_an_upload_whose_begin_was_lost_leaves_no_second_one(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one's reply is lost: it is found by its key and gone on with."""
    cloud.aws.faults.add("lost", "CreateMultipartUpload")
    await cut_off(cloud, monkeypatch)
    monkeypatch.setattr(storage, "UPLOAD_SLICE", 60.0)
    await cloud.until_ready("Model/wine")
    assert await unfinished(cloud) == []


async def test_an_upload_of_a_lost_state_folder_is_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its key proves that it is of this installation; another's is left alone."""
    (tmp_path / "first").mkdir()
    async with cloud_in(tmp_path / "first", instance="prod") as cloud:
        await cut_off(cloud, monkeypatch)
        (ours,) = await unfinished(cloud)
        theirs = "model/default/wine/" + "f" * 26 + ours[ours.index("/", 45) :]
        for key in (theirs, "another/thing.tar.gz"):
            await cloud.aws.in_process().call(
                "s3", "CreateMultipartUpload", {"Bucket": bucket_of(cloud.aws), "Key": key}
            )
        async with cloud_again(cloud, tmp_path / "second") as second:
            await second.declare(second.target())
            await second.until_ready("Target/cloud")
            orphans = Orphans(second.store, second.targets, Metrics())
            await orphans.look()
            assert len(await unfinished(second)) == 3, "younger than the grace"
            second.now += timedelta(hours=2)
            await orphans.look()
            assert sorted(await unfinished(second)) == sorted([theirs, "another/thing.tar.gz"])


async def test_an_object_in_s3_is_used_where_it_lies_and_followed(cloud: Cloud) -> None:
    """A new version there is a new artifact, and so a new config."""
    bucket = bucket_of(cloud.aws)

    async def put(content: bytes) -> None:
        async with cloud.aws.client("s3") as s3:
            await s3.put_object(Bucket=bucket, Key="theirs/model.tar.gz", Body=content)

    await put(b"one")
    spec: dict[str, JsonValue] = {
        "source": {"s3": f"s3://{bucket}/theirs/model.tar.gz"},
        "format": "pytorch",
        "target": "cloud",
    }
    model = cloud.document("Model", "wine", spec)
    await cloud.declare(cloud.target(), model, cloud.deployment())
    await cloud.until_ready("Deployment/wine")
    await put(b"two")
    await cloud.after(hours=1)
    await cloud.until_ready("Deployment/wine")
    assert cloud.calls()["UpdateEndpoint"] == 1
    await cloud.declare(cloud.target())
    await cloud.until_gone("Model/wine")
    async with cloud.aws.client("s3") as s3:
        held = await s3.list_objects_v2(Bucket=bucket, Prefix="theirs/")
    assert held["KeyCount"] == 1, "another's object is not removed"


async def test_a_deployment_waits_until_its_model_is_approved(cloud: Cloud) -> None:
    """And the old version serves on while the new one waits."""
    options: JsonValue = {"register": {}}
    model = cloud.model(options=options)
    await cloud.declare(cloud.target(), model, cloud.deployment())
    await cloud.after(minutes=10)
    ready = await cloud.ready("Model/wine")
    assert "waits for its approval" in ready.message
    assert cloud.names("endpoint") == []
    await approve(cloud)
    await cloud.until_ready("Deployment/wine")
    newer = cloud.model(content=b"newer", options=options)
    await cloud.declare(cloud.target(), newer, cloud.deployment())
    await cloud.after(minutes=10)
    assert (await cloud.ready("Deployment/wine")).reason == "DependencyNotReady"
    assert cloud.calls()["UpdateEndpoint"] == 0
    await approve(cloud)
    await cloud.after(minutes=15)
    await cloud.until_ready("Deployment/wine")
    assert cloud.calls()["UpdateEndpoint"] == 1


async def test_a_version_that_is_rejected_is_not_served(cloud: Cloud) -> None:
    """The old one serves on; the message says what to do. Approved after all, it is served."""
    options: JsonValue = {"register": {}}
    await cloud.declare(cloud.target(), cloud.model(options=options), cloud.deployment())
    await cloud.after(minutes=1)
    await approve(cloud)
    await cloud.until_ready("Deployment/wine")
    newer = cloud.model(content=b"newer", options=options)
    await cloud.declare(cloud.target(), newer, cloud.deployment())
    await cloud.after(minutes=10)
    await approve(cloud, "Rejected")
    await cloud.after(minutes=10)
    ready = await cloud.ready("Model/wine")
    assert ready.status == "False"
    assert "rejected; commit another, or approve it" in ready.message
    assert cloud.calls()["UpdateEndpoint"] == 0
    await approve(cloud)
    await cloud.after(minutes=20)
    await cloud.until_ready("Deployment/wine")
    assert cloud.calls()["UpdateEndpoint"] == 1


async def approve(cloud: Cloud, decision: str = "Approved") -> None:
    """A person decides about the newest version."""
    async with cloud.aws.client("sagemaker") as sagemaker:
        listed = await sagemaker.list_model_packages(ModelPackageGroupName="wine")
        newest = max(listed["ModelPackageSummaryList"], key=lambda v: v["ModelPackageVersion"])
        await sagemaker.update_model_package(
            ModelPackageArn=newest["ModelPackageArn"], ModelApprovalStatus=decision
        )
