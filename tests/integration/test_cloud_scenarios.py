"""The scenarios that anybody with an account can run: ``pytest --target=aws`` (see the docs).

They look only through the daemon and AWS's own clients, so that they mean the same on the double
and on the live service, where each costs money and minutes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import JsonValue

from rig.cloud import IMAGE, Cloud, archive, cloud_in
from rig.cloud_live import ESTIMATE, LiveCloud, live_in, settings

COMPLETE = {
    "WINDLASS_AWS_REGION": "eu-west-1",
    "WINDLASS_AWS_ACCOUNT": "123456789012",
    "WINDLASS_AWS_ROLE": "arn:aws:iam::123456789012:role/x",
    "WINDLASS_AWS_BUCKET": "bucket",
    "WINDLASS_AWS_IMAGE": IMAGE,
    "WINDLASS_AWS_MAX_COST": "5",
}


@pytest.fixture
async def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cloud]:
    """The double, or with ``--target=aws`` the account of the environment."""
    if request.config.getoption("--target") == "aws":
        async with live_in(tmp_path) as live:
            yield live
    else:
        async with cloud_in(tmp_path) as world:
            yield world


def image_of(cloud: Cloud) -> JsonValue:
    """The container of the account."""
    images = cloud.target_params()["images"]
    assert isinstance(images, dict)
    return images["onnx"]


@pytest.mark.timeout(7200)
async def test_a_deployment_is_served_changed_and_removed(cloud: Cloud) -> None:
    """One endpoint from its first document to its last."""
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment())
    await cloud.until_ready("Deployment/wine")
    await cloud.declare(cloud.target(), cloud.model(content=b"better"), cloud.deployment())
    await cloud.until_ready("Deployment/wine")
    found = await cloud.found("Deployment/wine", "endpoint")
    assert found.digest is not None
    await cloud.declare(cloud.target())
    await cloud.until_gone("Deployment/wine")
    await cloud.until_gone("Model/wine")


@pytest.mark.timeout(7200)
async def test_an_endpoint_is_removed_while_it_is_being_made(cloud: Cloud) -> None:
    """AWS says no until it is made; that is waiting."""
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment())

    async def under_way() -> bool:
        found = await cloud.get("Deployment/wine")
        return any(r.wanted.role == "endpoint" for r in found.externals)

    await cloud.until(under_way)
    await cloud.declare(cloud.target(), cloud.model())
    await cloud.until_gone("Deployment/wine")


@pytest.mark.timeout(7200)
async def test_a_script_is_trained(cloud: Cloud) -> None:
    """One job on one machine."""
    spec: dict[str, JsonValue] = {
        "entrypoint": "train.py",
        "target": "cloud",
        "timeLimit": "20m",
        "image": image_of(cloud),
        "options": {"instanceType": "ml.m5.large"},
    }
    job = cloud.document("Job", "train", spec, {"train.py": b"print('trained')\n"})
    await cloud.declare(cloud.target(), job)
    await cloud.until_ready("Job/train")
    await cloud.declare(cloud.target())
    await cloud.until_gone("Job/train")


def test_the_live_account_needs_a_limit_on_cost() -> None:
    """Nothing is started by accident, and nothing beyond what was allowed."""
    assert settings(COMPLETE)["REGION"] == "eu-west-1"
    with pytest.raises(ValueError, match="WINDLASS_AWS_MAX_COST"):
        settings({**COMPLETE, "WINDLASS_AWS_MAX_COST": ""})
    with pytest.raises(ValueError, match=f"{ESTIMATE:.2f} dollars"):
        settings({**COMPLETE, "WINDLASS_AWS_MAX_COST": "0.01"})


async def test_the_live_kernel_waits_for_what_is_due(tmp_path: Path) -> None:
    """Its machinery on the double, in real time: the same scenario, with AWS in a hurry."""
    async with cloud_in(tmp_path) as cloud:
        aws = cloud.aws
        aws.account.durations = dict.fromkeys(aws.account.durations, 0.1)
        folder = tmp_path / "live"
        folder.mkdir()
        params = cloud.target_params()
        live = LiveCloud(folder, cloud.adapter, cloud.backend, aws=aws, params=params, run="x")
        live.now = datetime.now(UTC)
        await live._open()
        aws.clock.follow(lambda: live.now)
        try:
            await live.declare(live.target(), live.model(content=archive(["model.onnx"])))
            await live.until_ready("Model/wine")
        finally:
            await live.close()
