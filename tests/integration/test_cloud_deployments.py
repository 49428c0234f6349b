"""A Deployment on SageMaker from its first document to its last: made, changed, undone, removed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rig.cloud import BUCKET, Cloud
from rig.sagemaker.double import SageMakerDouble


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    """A kernel on an empty account."""
    async with SageMakerDouble() as aws:
        async with aws.client("s3") as s3:
            await s3.create_bucket(
                Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": aws.region}
            )
        world = await Cloud.start(tmp_path, aws)
        yield world
        await world.close()


async def test_one_of_each_is_made_and_ready_means_in_service(cloud: Cloud) -> None:
    """Model, config, endpoint: each once, the endpoint under the Deployment's own name."""
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment())
    await cloud.until_ready("Deployment/wine")
    made = cloud.calls()
    assert made["CreateModel"] == made["CreateEndpointConfig"] == made["CreateEndpoint"] == 1
    assert cloud.names("endpoint") == ["wine"]
    assert cloud.held("endpoint")[0].status == "InService"
