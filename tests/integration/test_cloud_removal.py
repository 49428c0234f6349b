"""The order of removal on SageMaker: what is in use goes after what uses it, however old it is."""

from __future__ import annotations

from pathlib import Path

from rig.cloud import cloud_in


async def test_what_was_updated_can_be_removed(tmp_path: Path) -> None:
    """After an update the config is younger than the endpoint that uses it, and still goes last."""
    async with cloud_in(tmp_path) as cloud:
        await cloud.declare(cloud.target(), cloud.model(), cloud.deployment())
        await cloud.until_ready("Deployment/wine")
        await cloud.declare(cloud.target(), cloud.model(content=b"new"), cloud.deployment())
        await cloud.after(minutes=15)
        await cloud.declare(cloud.target())
        await cloud.until_gone("Deployment/wine")
        await cloud.until_gone("Model/wine")
        assert cloud.aws.monitor.held() == []
        cloud.aws.monitor.check()
