"""Inference through the platform reaches a SageMaker endpoint as it reaches a model nearby."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rig.cloud import Cloud, cloud_in
from rig.sagemaker.runtime import Answer, Invoked
from windlass.api.inference import serving
from windlass_adapters.base import InferReply, Infers


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    """A kernel with one endpoint in service."""
    async with cloud_in(tmp_path) as world:
        await world.declare(world.target(), world.model(), world.deployment())
        await world.until_ready("Deployment/wine")
        yield world


async def ask(cloud: Cloud, body: bytes, **headers: str) -> InferReply:
    """Ask as the gateway does."""
    found = await cloud.get("Deployment/wine")
    record = serving(found)
    assert record is not None
    adapter = (await cloud.target_of(found)).adapter
    assert isinstance(adapter, Infers)
    return await adapter.infer(record.external, body, headers)


async def test_a_body_of_three_megabytes_arrives_as_it_was_sent(cloud: Cloud) -> None:
    """An image as nested lists of JSON."""
    pixel = [0.49073440771976096, 0.15912027480082647, 0.011530514312762086]
    body = json.dumps({"inputs": [[[pixel] * 224] * 224]}).encode()
    assert len(body) > 3_000_000
    cloud.aws.front.runtime.containers.append(
        ("wine", lambda asked: Answer(b'{"outputs": [[0.5]]}'))
    )
    reply = await ask(cloud, body, **{"content-type": "application/json"})
    assert reply.status == 200
    assert json.loads(reply.body) == {"outputs": [[0.5]]}
    (asked,) = cloud.aws.front.runtime.invocations
    assert asked.body == body
    assert asked.content_type == "application/json"


async def test_a_model_that_refuses_is_heard(cloud: Cloud) -> None:
    """Its status and its words, not ours."""

    def refuse(asked: Invoked) -> Answer:
        return Answer(b'{"error": "no key inputs"}', status=422)

    cloud.aws.front.runtime.containers.append(("wine", refuse))
    reply = await ask(cloud, b"{}")
    assert reply.status == 422
    assert json.loads(reply.body) == {"error": "no key inputs"}


async def test_a_body_that_is_too_large_is_refused_here(cloud: Cloud) -> None:
    """It costs no call."""
    reply = await ask(cloud, b"x" * ((6 << 20) + 1))
    assert reply.status == 413
    assert cloud.aws.front.runtime.invocations == []


async def test_other_content_types_pass(cloud: Cloud) -> None:
    """Bytes of an image, and an answer that is no JSON."""
    answer = Answer(b"\x00\x01", content_type="application/octet-stream")
    cloud.aws.front.runtime.containers.append(("wine", lambda asked: answer))
    reply = await ask(cloud, b"\xff\xd8", **{"content-type": "image/jpeg"})
    assert reply.headers["content-type"] == "application/octet-stream"
    assert cloud.aws.front.runtime.invocations[0].content_type == "image/jpeg"
