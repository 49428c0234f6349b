"""What older systems did with SageMaker, by their own inputs: done here, or refused early."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

import aioboto3
import pytest
from pydantic import JsonValue

from rig.cloud import Cloud, archive, bucket_of, cloud_in
from rig.sagemaker.double import SageMakerDouble
from rig.sagemaker.runtime import Answer, Invoked
from windlass.api.inference import serving
from windlass.store.base import Document
from windlass_adapters.base import InferReply, Infers
from windlass_adapters.testing.schedules import FAULTS
from windlass_adapters.testing.stepping import Cut

ARCHIVES = {
    "tensorflow": "1/saved_model.pb",
    "pytorch": "model.pth",
    "sklearn": "model.joblib",
    "onnx": "model.onnx",
}


@pytest.fixture(autouse=True)
def _one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """To read AWS's service models takes a second: all adapters of a test share one session."""
    monkeypatch.setattr(aioboto3, "Session", cache(aioboto3.Session))


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    """A kernel on an account that holds nothing."""
    async with cloud_in(tmp_path) as world:
        yield world


def packed(cloud: Cloud, format_: str, member: str, **spec: JsonValue) -> Document:
    """A Model in a ``model.tar.gz``."""
    given: dict[str, JsonValue] = {
        "source": {"file": "model.tar.gz"},
        "format": format_,
        "target": "cloud",
    }
    return cloud.document("Model", "wine", given | spec, {"model.tar.gz": archive([member])})


@pytest.mark.parametrize("format_", sorted(ARCHIVES))
async def test_an_artifact_of_each_framework_is_deployed(cloud: Cloud, format_: str) -> None:
    """From upload and registration to an endpoint in service."""
    options: JsonValue = {"register": {"approval": "Approved"}}
    model = packed(cloud, format_, ARCHIVES[format_], options=options)
    await cloud.declare(cloud.target(), model, cloud.deployment())
    await cloud.until_ready("Deployment/wine")
    (package,) = cloud.held("model-package")
    assert package.body["ModelApprovalStatus"] == "Approved"
    assert cloud.names("endpoint") == ["wine"]
    cloud.aws.monitor.check()


@pytest.mark.parametrize("format_", sorted(ARCHIVES))
async def test_an_artifact_of_another_framework_is_refused_before_any_endpoint(
    cloud: Cloud, format_: str
) -> None:
    """At validation, with what it holds; nothing is made that costs."""
    model = packed(cloud, format_, "weights.txt")
    await cloud.declare(cloud.target(), model, cloud.deployment())
    await cloud.after(minutes=10)
    ready = await cloud.ready("Model/wine")
    assert ready.reason == "InvalidArtifact"
    assert "weights.txt" in ready.message
    assert cloud.aws.calls.counts().keys().isdisjoint({"CreateModel", "CreateEndpoint"})


@pytest.mark.parametrize("form", ["{}", "s3://{}"])
async def test_a_bucket_is_given_by_name_or_by_address(tmp_path: Path, form: str) -> None:
    """``name`` and ``s3://name`` are one; with the old region, instance type and one replica."""
    async with cloud_in(tmp_path, SageMakerDouble(region="ap-southeast-1")) as cloud:
        cloud.params = {"bucket": form.format(bucket_of(cloud.aws))}
        model = packed(cloud, "tensorflow", ARCHIVES["tensorflow"])
        deployment = cloud.deployment(replicas=1, options={"instanceType": "ml.m4.xlarge"})
        await cloud.declare(cloud.target(), model, deployment)
        await cloud.until_ready("Deployment/wine")
        (made,) = cloud.held("model")
        assert ":ap-southeast-1:" in made.arn
        url = made.body["PrimaryContainer"]["ModelDataUrl"]
        assert url.startswith(f"s3://{bucket_of(cloud.aws)}/")
        (config,) = cloud.held("endpoint-config")
        (variant,) = config.body["ProductionVariants"]
        assert (variant["InstanceType"], variant["InitialInstanceCount"]) == ("ml.m4.xlarge", 1)


async def test_two_deployments_of_one_model_and_none_is_an_orphan(cloud: Cloud) -> None:
    """The second one had lost its endpoint there, and the first inference its record."""
    both = [cloud.deployment("first"), cloud.deployment("second")]
    await cloud.declare(cloud.target(), cloud.model(), *both)
    await cloud.until_ready("Deployment/first", "Deployment/second")
    assert cloud.names("endpoint") == ["first", "second"]
    cloud.aws.serve(lambda asked: Answer(b"{}"))
    for _ in range(2):
        assert (await ask(cloud, "first", b"{}")).status == 200
    await cloud.declare(cloud.target())
    for name in ("Deployment/first", "Deployment/second", "Model/wine"):
        await cloud.until_gone(name)
    assert cloud.aws.monitor.held() == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_killed_between_the_endpoint_and_the_record_of_it(cloud: Cloud) -> None:
    """The reply to CreateEndpoint never reaches the store: one endpoint all the same."""
    cloud.aws.faults.add("lost", "CreateEndpoint")
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment())

    async def made() -> bool:
        return cloud.names("endpoint") == ["wine"]

    await cloud.until(made)
    cloud.cut = Cut((0,), FAULTS["killed"]())
    await cloud.until_ready("Deployment/wine")
    assert cloud.deaths == 1
    assert cloud.aws.calls["CreateEndpoint"] == 1


async def test_a_picture_by_address_comes_back_as_133_numbers(cloud: Cloud) -> None:
    """The body passes as it is; the best of them is where it was."""
    scores = [-5.0] * 133
    scores[19], scores[62] = -0.0031809, -13.984
    body = json.dumps({"url": "https://example.org/Carolina-Dog-standing-outdoors.jpg"}).encode()

    def container(asked: Invoked) -> Answer:
        assert (asked.body, asked.content_type) == (body, "application/json")
        return Answer(json.dumps([scores]).encode())

    cloud.aws.serve(container)
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment())
    await cloud.until_ready("Deployment/wine")
    (given,) = json.loads((await ask(cloud, "wine", body)).body)
    assert (given.index(max(given)), given.index(min(given))) == (19, 62)


async def ask(cloud: Cloud, name: str, body: bytes) -> InferReply:
    """Ask as the gateway does."""
    found = await cloud.get(f"Deployment/{name}")
    record = serving(found)
    assert record is not None
    adapter = (await cloud.target_of(found)).adapter
    assert isinstance(adapter, Infers)
    return await adapter.infer(record.external, body, {"content-type": "application/json"})
