"""The SageMaker double over HTTP, with the real client library on the other end."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError, ParamValidationError

from rig.sagemaker.double import SageMakerDouble
from rig.sagemaker.runtime import Answer, Invoked
from rig.sagemaker.samples import IMAGE, ROLE, make_endpoint, make_live, make_model, variant

POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "Make",
            "Effect": "Allow",
            "Action": ["sagemaker:CreateModel", "sagemaker:AddTags"],
            "Resource": "*",
            "Condition": {"StringEquals": {"aws:RequestTag/owner": "${me}"}},
        },
        {
            "Sid": "Own",
            "Effect": "Allow",
            "Action": ["sagemaker:DeleteModel", "sagemaker:DeleteEndpoint"],
            "Resource": "*",
            "Condition": {"StringEquals": {"aws:ResourceTag/owner": "${me}"}},
        },
        {
            "Sid": "Pass",
            "Effect": "Allow",
            "Action": "iam:PassRole",
            "Resource": ROLE,
            "Condition": {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}},
        },
    ],
}


@pytest.fixture
async def aws() -> AsyncIterator[SageMakerDouble]:
    """An account on a free port."""
    async with SageMakerDouble() as double:
        yield double


@pytest.fixture
async def sagemaker(aws: SageMakerDouble) -> AsyncIterator[Any]:
    """A real client of it."""
    async with aws.client("sagemaker") as client:
        yield client


def code(error: pytest.ExceptionInfo[ClientError]) -> str:
    """The error's code, as code reads it."""
    found: str = error.value.response["Error"]["Code"]
    return found


async def create_model(sagemaker: Any, model: str = "m", **more: Any) -> None:
    """Make a model by the client."""
    container = {"Image": IMAGE}
    await sagemaker.create_model(
        ModelName=model, ExecutionRoleArn=ROLE, PrimaryContainer=container, **more
    )


async def test_it_is_up_at_once_and_several_are_apart() -> None:
    """Each has a port, an account and a clock of its own."""
    began = time.process_time()
    async with SageMakerDouble() as one, SageMakerDouble() as two:
        assert time.process_time() - began < 2
        make_model(one.foreign)
        assert one.url != two.url
        assert (len(one.account.all("model")), len(two.account.all("model"))) == (1, 0)
        one.clock.advance(hours=1)
        assert one.clock.seconds - two.clock.seconds > 3000


async def test_a_real_client_takes_an_endpoint_through_its_life(
    aws: SageMakerDouble, sagemaker: Any
) -> None:
    """Seven calls, all checked on both sides."""
    await create_model(sagemaker)
    await sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant()])
    await sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    aws.clock.advance(minutes=2)
    told = await sagemaker.describe_endpoint(EndpointName="e")
    assert told["EndpointStatus"] == "InService"
    await sagemaker.delete_endpoint(EndpointName="e")
    await sagemaker.delete_endpoint_config(EndpointConfigName="c")
    await sagemaker.delete_model(ModelName="m")
    aws.clock.advance(minutes=1)
    assert aws.monitor.held() == []
    assert aws.calls.counts().total() == 7


async def test_a_wrong_secret_and_an_unknown_key_are_told_apart(aws: SageMakerDouble) -> None:
    """The signature is computed again."""
    keys = {"aws_access_key_id": aws.credentials.access_key, "aws_secret_access_key": "wrong"}
    async with aws.client("sagemaker", **keys) as client:
        with pytest.raises(ClientError) as error:
            await client.list_models()
    assert code(error) == "InvalidSignatureException"
    keys = {"aws_access_key_id": "AKIASTRANGER", "aws_secret_access_key": "x"}
    async with aws.client("sagemaker", **keys) as client:
        with pytest.raises(ClientError) as error:
            await client.list_models()
    assert code(error) == "UnrecognizedClientException"


@pytest.mark.parametrize(
    ("kind", "answered"),
    [
        ("throttle", "ThrottlingException"),
        ("internal", "InternalFailure"),
        ("unavailable", "ServiceUnavailable"),
        ("expired", "ExpiredTokenException"),
        ("denied", "AccessDeniedException"),
        ("quota", "ResourceLimitExceeded"),
    ],
)
async def test_a_fault_is_answered_once_and_has_no_effect(
    aws: SageMakerDouble, sagemaker: Any, kind: str, answered: str
) -> None:
    """The second try goes through."""
    aws.faults.add(kind, "CreateModel")
    with pytest.raises(ClientError) as error:
        await create_model(sagemaker)
    assert code(error) == answered
    await create_model(sagemaker)
    assert [call.error for call in aws.calls] == [answered, ""]


@pytest.mark.parametrize("kind", ["lost", "half"])
async def test_an_answer_may_get_lost_after_the_effect(
    aws: SageMakerDouble, sagemaker: Any, kind: str
) -> None:
    """Then the second try finds that it exists."""
    aws.faults.add(kind, "CreateModel")
    with pytest.raises((ConnectionClosedError, ClientError)):
        await create_model(sagemaker)
    with pytest.raises(ClientError, match="already existing"):
        await create_model(sagemaker)


async def test_a_page_of_html_may_hide_an_effect(aws: SageMakerDouble, sagemaker: Any) -> None:
    """A 502 of something in between."""
    aws.faults.add("html", "CreateModel")
    with pytest.raises(ClientError) as error:
        await create_model(sagemaker)
    assert code(error) == "502"
    assert aws.account.exists("model", "m")


async def test_a_reset_before_the_effect_leaves_nothing(
    aws: SageMakerDouble, sagemaker: Any
) -> None:
    """The request never arrived."""
    aws.faults.add("reset", "CreateModel")
    with pytest.raises(ConnectionClosedError):
        await create_model(sagemaker)
    assert not aws.account.exists("model", "m")


async def test_a_slow_answer_comes_late(aws: SageMakerDouble, sagemaker: Any) -> None:
    """Long enough for a client's own patience to end."""
    aws.faults.add("slow", "ListModels", seconds=30)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await sagemaker.list_models()


async def test_faults_choose_by_operation_by_request_and_by_turn(
    aws: SageMakerDouble, sagemaker: Any
) -> None:
    """Only the second model whose name begins with b."""
    aws.faults.add("throttle", "Create*", matching='*"ModelName": "b*', skip=1)
    for name in ("a", "b1"):
        await create_model(sagemaker, name)
    with pytest.raises(ClientError, match="Rate exceeded"):
        await create_model(sagemaker, "b2")


async def test_buckets_are_filled_by_virtual_time(aws: SageMakerDouble, sagemaker: Any) -> None:
    """Two a second for ListTrainingJobs."""
    aws.faults.rates["ListTrainingJobs"] = (2, 2)
    for _ in "ab":
        await sagemaker.list_training_jobs()
    with pytest.raises(ClientError, match="Rate exceeded"):
        await sagemaker.list_training_jobs()
    aws.clock.advance(0.5)
    await sagemaker.list_training_jobs()


async def test_credentials_run_out_for_every_service(aws: SageMakerDouble, sagemaker: Any) -> None:
    """And are renewed."""
    aws.expire_credentials()
    async with aws.client("sts") as sts:
        for ask, answered in (
            (sagemaker.list_models, "ExpiredTokenException"),
            (sts.get_caller_identity, "ExpiredToken"),
        ):
            with pytest.raises(ClientError) as error:
                await ask()
            assert code(error) == answered
        aws.renew()
        assert (await sts.get_caller_identity())["Account"] == aws.account.number


async def test_an_unmodelled_operation_answers_501(aws: SageMakerDouble, sagemaker: Any) -> None:
    """Never a guess."""
    with pytest.raises(ClientError) as error:
        await sagemaker.list_apps()
    assert code(error) == "NotImplementedByDouble"
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert aws.monitor.violations


async def test_the_client_lets_pass_what_the_service_refuses(
    aws: SageMakerDouble, sagemaker: Any
) -> None:
    """Patterns and maximums are checked nowhere else; required members by both."""
    with pytest.raises(ClientError, match="regular expression"):
        await create_model(sagemaker, "bad_name!")
    with pytest.raises(ParamValidationError):
        await sagemaker.create_endpoint_config(EndpointConfigName="c")
    assert aws.monitor.violations, "a request that AWS refuses is the adapter's fault"


async def test_s3_holds_what_was_put_and_checks_its_sum(aws: SageMakerDouble) -> None:
    """Parts with SHA-256, conditional puts, keys of any letters."""
    bucket = f"b-{aws.account.number}"
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    async with aws.client("s3") as s3:
        where = {"LocationConstraint": aws.region}
        await s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=where)
        upload = (
            await s3.create_multipart_upload(Bucket=bucket, Key="big", ChecksumAlgorithm="SHA256")
        )["UploadId"]
        data, parts = [os.urandom(5 << 20), b"end"], []
        for number, body in enumerate(data, 1):
            part = await s3.upload_part(
                Bucket=bucket,
                Key="big",
                UploadId=upload,
                PartNumber=number,
                Body=body,
                ChecksumAlgorithm="SHA256",
            )
            kept = {"ETag": part["ETag"], "ChecksumSHA256": part["ChecksumSHA256"]}
            parts.append({"PartNumber": number, **kept})
        await s3.complete_multipart_upload(
            Bucket=bucket, Key="big", UploadId=upload, MultipartUpload={"Parts": parts}
        )
        told = await s3.head_object(Bucket=bucket, Key="big")
        assert told["ContentLength"] == (5 << 20) + 3
        await s3.put_object(Bucket=bucket, Key="a b/ü+c", Body=b"hello", IfNoneMatch="*")
        with pytest.raises(ClientError, match="PreconditionFailed"):
            await s3.put_object(Bucket=bucket, Key="a b/ü+c", Body=b"hello", IfNoneMatch="*")
        got = await s3.get_object(Bucket=bucket, Key="a b/ü+c")
        async with got["Body"] as stream:
            assert await stream.read() == b"hello"
        with pytest.raises(ClientError, match="BadDigest"):
            await s3.put_object(Bucket=bucket, Key="x", Body=b"x", ChecksumSHA256=wrong)
        aws.faults.add("throttle", "PutObject")
        with pytest.raises(ClientError, match="SlowDown"):
            await s3.put_object(Bucket=bucket, Key="x", Body=b"x")


async def test_an_assumed_role_signs_with_what_it_was_given(aws: SageMakerDouble) -> None:
    """And is somebody else to IAM."""
    async with aws.client("sts") as sts:
        role = f"arn:aws:iam::{aws.account.number}:role/reader"
        told = await sts.assume_role(RoleArn=role, RoleSessionName="test")
    given = told["Credentials"]
    keys = {
        "aws_access_key_id": given["AccessKeyId"],
        "aws_secret_access_key": given["SecretAccessKey"],
        "aws_session_token": given["SessionToken"],
    }
    async with aws.client("sagemaker", **keys) as client:
        await client.list_models()
    *_, last = aws.calls
    assert "assumed-role/reader" in last.principal


async def test_a_policy_is_evaluated_and_what_it_did_not_need_is_known(
    aws: SageMakerDouble, sagemaker: Any, tmp_path: Path
) -> None:
    """By action, ARN, tags of the request and of the resource, and passed roles."""
    (tmp_path / "policy.json").write_text(json.dumps(POLICY))
    aws.iam.enforce(tmp_path / "policy.json", me="windlass")
    mine: dict[str, Any] = {"Tags": [{"Key": "owner", "Value": "windlass"}]}
    with pytest.raises(ClientError, match="not authorized to perform: sagemaker:CreateModel"):
        await create_model(sagemaker)
    await create_model(sagemaker, **mine)
    with pytest.raises(ClientError, match="not authorized to perform: iam:PassRole"):
        await sagemaker.create_model(ModelName="n", ExecutionRoleArn=f"{ROLE}-2", **mine)
    with pytest.raises(ClientError, match="not authorized to perform: sagemaker:ListModels"):
        await sagemaker.list_models()
    make_model(aws.foreign, "theirs")
    with pytest.raises(ClientError, match="not authorized to perform: sagemaker:DeleteModel"):
        await sagemaker.delete_model(ModelName="theirs")
    await sagemaker.delete_model(ModelName="m")
    assert aws.iam.unused() == ["Own: sagemaker:DeleteEndpoint"]


async def test_touching_what_others_made_is_a_violation(
    aws: SageMakerDouble, sagemaker: Any
) -> None:
    """Unless the test lets it be taken over."""
    make_model(aws.foreign, "theirs")
    make_model(aws.foreign, "given")
    aws.monitor.adoptable.add(aws.account.arn("model", "given"))
    await sagemaker.delete_model(ModelName="given")
    aws.monitor.check()
    await sagemaker.delete_model(ModelName="theirs")
    with pytest.raises(AssertionError, match=r"DeleteModel on .*model/theirs"):
        aws.monitor.check()


async def test_deleting_a_configuration_in_use_is_a_violation(
    aws: SageMakerDouble, sagemaker: Any
) -> None:
    """AWS lets it happen."""
    await create_model(sagemaker)
    await sagemaker.create_endpoint_config(EndpointConfigName="c", ProductionVariants=[variant()])
    await sagemaker.create_endpoint(EndpointName="e", EndpointConfigName="c")
    await sagemaker.delete_endpoint_config(EndpointConfigName="c")
    with pytest.raises(AssertionError, match="while e uses it"):
        aws.monitor.check()


async def test_an_endpoint_answers_with_what_is_served_there(aws: SageMakerDouble) -> None:
    """Bytes in, bytes out; a container's error becomes a ModelError."""
    make_live(aws.foreign)
    make_endpoint(aws.foreign, "young")

    def container(asked: Invoked) -> Answer:
        if asked.body == b"bad":
            return Answer(b"no such input", status=400)
        return Answer(asked.body[::-1], content_type=asked.accept)

    aws.serve(container)
    async with aws.client("sagemaker-runtime") as runtime:
        told = await runtime.invoke_endpoint(EndpointName="e", Body=b"abc", Accept="text/x")
        async with told["Body"] as stream:
            assert (await stream.read(), told["ContentType"]) == (b"cba", "text/x")
        assert told["InvokedProductionVariant"] == "AllTraffic"
        with pytest.raises(ClientError) as error:
            await runtime.invoke_endpoint(EndpointName="e", Body=b"bad")
        assert error.value.response["OriginalStatusCode"] == 400
        assert error.value.response["OriginalMessage"] == "no such input"
        with pytest.raises(ClientError, match=r"Endpoint young of account .* not found"):
            await runtime.invoke_endpoint(EndpointName="young", Body=b"abc")


async def test_resources_are_found_by_their_tags_in_both_ways(
    aws: SageMakerDouble, sagemaker: Any
) -> None:
    """Search has the records, GetResources the ARNs."""
    tags = [{"Key": "windlass:owner", "Value": "me"}]
    make_model(aws.foreign, "tagged", Tags=tags)
    make_model(aws.foreign, "bare")
    wanted = {"Name": "Tags.windlass:owner", "Operator": "Equals", "Value": "me"}
    told = await sagemaker.search(Resource="Model", SearchExpression={"Filters": [wanted]})
    assert [r["Model"]["Model"]["ModelName"] for r in told["Results"]] == ["tagged"]
    assert told["Results"][0]["Model"]["Model"]["Tags"] == tags
    async with aws.client("resourcegroupstaggingapi") as tagging:
        told = await tagging.get_resources(
            TagFilters=[{"Key": "windlass:owner", "Values": ["me"]}],
            ResourceTypeFilters=["sagemaker:model"],
        )
    arns = [one["ResourceARN"] for one in told["ResourceTagMappingList"]]
    assert arns == [aws.account.arn("model", "tagged")]


async def test_any_client_of_another_process_can_be_pointed_at_it(aws: SageMakerDouble) -> None:
    """By the environment alone."""
    program = "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        program,
        env={**os.environ, **aws.environment},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert out.decode().strip() == aws.account.number
