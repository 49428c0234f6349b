"""Two daemons share an account: what one has done in the last hour, the other's readings lack.

Each knows the account by what it read at its last audit. Before it acts on that, it asks by name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rig.cloud import Cloud, bucket_of, cloud_in
from rig.cloud_stories import run_of


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    """A kernel on an account that holds nothing."""
    async with cloud_in(tmp_path, wire=False) as world:
        yield world


async def serve(cloud: Cloud, content: bytes = b"weights", **options: object) -> None:
    """A Deployment in service."""
    await change(cloud, content, **options)
    await cloud.until_ready("Deployment/wine")


async def change(cloud: Cloud, content: bytes, **options: object) -> None:
    """Declare it with another content of its Model."""
    deployment = cloud.deployment(options={k: str(v) for k, v in options.items()})
    await cloud.declare(cloud.target(), cloud.model(content=content), deployment)


@pytest.mark.parametrize("lag", [0.0, 86_400.0])
@pytest.mark.parametrize("handed", [10, 30])
async def test_an_update_that_failed_is_not_tried_again_by_the_other(
    cloud: Cloud, lag: float, handed: int
) -> None:
    """In the middle of it or after it; even where the index of tags is a day behind."""
    await serve(cloud)
    second = await cloud.second_daemon()
    cloud.aws.account.search_lag = lag
    cloud.aws.plan("update", fail="the container does not answer", seconds=1200)
    await change(cloud, b"worse")
    await cloud.after(minutes=handed)
    cloud.hand_over(second)
    await cloud.after(hours=3)
    ready = await cloud.ready("Deployment/wine")
    assert (ready.status, ready.reason) == ("False", "UpdateFailed")
    assert "the container does not answer" in ready.message
    assert cloud.aws.calls.done()["UpdateEndpoint"] == 1


async def test_going_back_is_remembered_by_both(cloud: Cloud) -> None:
    """An update and its rollback failed, and one daemon has put the old version in force again."""
    await serve(cloud)
    second = await cloud.second_daemon()
    cloud.aws.plan("update", fail="no", status="UpdateRollbackFailed")
    await change(cloud, b"worse")
    await cloud.after(minutes=30)
    assert cloud.aws.calls.done()["UpdateEndpoint"] == 2
    cloud.hand_over(second)
    await cloud.after(hours=3)
    assert (await cloud.ready("Deployment/wine")).reason == "UpdateFailed"
    assert cloud.aws.calls.done()["UpdateEndpoint"] == 2


async def test_what_the_other_has_removed_is_made_again(cloud: Cloud) -> None:
    """A revert: to this daemon's knowledge artifact, model and config are all still there."""
    await serve(cloud)
    second = await cloud.second_daemon()
    await serve(cloud, b"better")
    await cloud.after(minutes=15)
    cloud.hand_over(second)
    await change(cloud, b"weights")
    await cloud.after(minutes=20)
    assert (await cloud.ready("Deployment/wine")).status == "True"
    assert len(cloud.names("endpoint-config")) == len(cloud.names("model")) == 1
    (model,) = cloud.held("model")
    _, _, key = model.body["PrimaryContainer"]["ModelDataUrl"].removeprefix("s3://").partition("/")
    assert key in cloud.aws.others.keys(bucket_of(cloud.aws))
    cloud.aws.monitor.check()


async def test_a_ttl_that_the_other_has_taken_away_is_over_for_nobody(cloud: Cloud) -> None:
    """Before an endpoint is taken down for a tag, the tag is read once more."""
    await serve(cloud, ttl="4h")
    await cloud.after(hours=3.5)
    second = await cloud.second_daemon()
    await serve(cloud)
    await cloud.after(minutes=40)
    cloud.hand_over(second)
    await cloud.after(hours=3)
    assert (await cloud.ready("Deployment/wine")).status == "True"
    assert cloud.aws.calls.done()["CreateEndpoint"] == 1


async def test_a_run_does_not_begin_without_its_program(cloud: Cloud) -> None:
    """The other daemon has removed the Job and its archive; here that is seen still."""
    await cloud.declare(cloud.target(), run_of(cloud, "training"))
    await cloud.until_ready("Job/run")
    second = await cloud.second_daemon()
    await cloud.declare(cloud.target())
    await cloud.until_gone("Job/run")
    cloud.hand_over(second)
    await cloud.declare(cloud.target(), run_of(cloud, "training"))
    await cloud.until_ready("Job/run")
    bucket = bucket_of(cloud.aws)
    held = cloud.aws.others.keys(bucket)
    (job,) = cloud.held("training-job")
    url = job.body["HyperParameters"]["sagemaker_submit_directory"].strip('"')
    assert url.removeprefix(f"s3://{bucket}/") in held
