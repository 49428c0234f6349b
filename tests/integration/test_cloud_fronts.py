"""A Lambda function in front of an endpoint: its own role, an alias, gone with the Deployment."""

from __future__ import annotations

import asyncio
import io
import json
import os
import urllib.parse
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest
from botocore.exceptions import ClientError
from pydantic import JsonValue

from rig.cloud import Cloud, cloud_in
from rig.sagemaker.runtime import Answer
from windlass_adapters.sagemaker import fronted

FRONT: dict[str, JsonValue] = {
    "expose": "lambda",
    "front": {"concurrency": 2, "maxBody": 1000},
}
Handler = Callable[[dict[str, JsonValue], None], dict[str, JsonValue]]


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    """A kernel with one endpoint that has a front."""
    async with cloud_in(tmp_path) as world:
        await world.declare(world.target(), world.model(), world.deployment(options=FRONT))
        await world.until_ready("Deployment/wine")
        yield world


async def test_its_role_may_invoke_that_endpoint_and_nothing_else(cloud: Cloud) -> None:
    """And its environment names the endpoint."""
    async with cloud.aws.client("iam") as iam, cloud.aws.client("lambda") as lambda_:
        found = await iam.get_role_policy(RoleName="wine-front", PolicyName="invoke")
        document = found["PolicyDocument"]
        if isinstance(document, str):
            document = json.loads(urllib.parse.unquote(document))
        (statement,) = document["Statement"]
        assert statement["Action"] == "sagemaker:InvokeEndpoint"
        assert statement["Resource"].endswith(":endpoint/wine")
        function = await lambda_.get_function(FunctionName="wine-front")
        variables = function["Configuration"]["Environment"]["Variables"]
        assert variables == {"ENDPOINT_NAME": "wine", "MAX_BODY": "1000"}
        alias = await lambda_.get_alias(FunctionName="wine-front", Name="live")
        assert alias["FunctionVersion"] == "1"
    put = [c for c in cloud.aws.calls.log if c.operation == "PutProvisionedConcurrencyConfig"]
    assert [c.request["ProvisionedConcurrentExecutions"] for c in put] == [2]


async def test_another_limit_is_a_new_version_behind_the_same_alias(cloud: Cloud) -> None:
    """Clients keep their address."""
    options = FRONT | {"front": {"maxBody": 2000}}
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment(options=options))
    await cloud.after(minutes=5)
    await cloud.until_ready("Deployment/wine")
    async with cloud.aws.client("lambda") as lambda_:
        alias = await lambda_.get_alias(FunctionName="wine-front", Name="live")
    assert alias["FunctionVersion"] == "2"
    assert cloud.calls()["CreateFunction"] == 1
    assert cloud.calls()["DeleteProvisionedConcurrencyConfig"] == 1


async def test_it_goes_with_the_deployment_and_so_does_its_role(cloud: Cloud) -> None:
    """Before the endpoint."""
    await cloud.declare(cloud.target(), cloud.model())
    await cloud.until_gone("Deployment/wine")
    order = [c.operation for c in cloud.aws.calls.log if c.operation.startswith("Delete")]
    assert order.index("DeleteFunction") < order.index("DeleteEndpoint")
    async with cloud.aws.client("iam") as iam, cloud.aws.client("lambda") as lambda_:
        with pytest.raises(ClientError, match="ResourceNotFound"):
            await lambda_.get_function(FunctionName="wine-front")
        with pytest.raises(ClientError, match="NoSuchEntity"):
            await iam.get_role(RoleName="wine-front")


async def test_the_program_passes_requests_on_and_keeps_its_limit(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run as Lambda runs it, with AWS's own client."""
    for name, value in cloud.aws.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ENDPOINT_NAME", "wine")
    monkeypatch.setenv("MAX_BODY", "1000")
    containers = cloud.aws.front.runtime.containers
    containers.append(("wine", lambda asked: Answer(b'{"echo": ' + asked.body + b"}")))
    handler = await asyncio.to_thread(_handler)
    url: dict[str, JsonValue] = {"url": "https://example.org/dog.jpg"}
    reply = await asyncio.to_thread(handler, url, None)
    assert reply["statusCode"] == 200
    assert json.loads(str(reply["body"])) == {"echo": url}
    asked: dict[str, JsonValue] = {"body": "[1]", "headers": {"Content-Type": "application/json"}}
    assert (await asyncio.to_thread(handler, asked, None))["body"] == '{"echo": [1]}'
    large = await asyncio.to_thread(handler, {"body": "x" * 1001}, None)
    assert large["statusCode"] == 413
    containers[0] = ("wine", lambda asked: Answer(b"no such key", status=422))
    assert (await asyncio.to_thread(handler, {"body": "[1]"}, None))["statusCode"] == 422


def _handler() -> Handler:
    """The program out of its archive."""
    with zipfile.ZipFile(io.BytesIO(fronted.archive())) as archive:
        program = archive.read("index.py")
    names: dict[str, object] = {"os": os}
    exec(compile(program, "index.py", "exec"), names)
    return cast(Handler, names["handler"])
