"""S3, STS, IAM, CloudWatch, logs and Lambda: moto, in this process and behind the same front door.

What moto does not do and AWS does: it takes any checksum that a client sends (checked here, before
it), it answers 500 for a part of an upload that is over, it has begun all uploads in 2010 and made
all else by the machine's clock (put right here), its Lambda runs nothing, its CloudWatch raises no
alarm by itself, and who calls is always the same user (answered here). SageMaker and autoscaling
are never answered from there.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs
from uuid import uuid4

from rig.sagemaker.refusals import not_modelled, refuse, rule
from rig.sagemaker.signing import Caller, Credentials, Signed
from rig.sagemaker.wire import Asked, Reply

BAD_DIGEST = rule(
    "s3.digest",
    "doc",
    "BadDigest",
    "The {algorithm} you specified did not match the calculated checksum.",
)
_SUMS: dict[str, Callable[[bytes], bytes]] = {
    "sha256": lambda body: hashlib.sha256(body).digest(),
    "sha1": lambda body: hashlib.sha1(body, usedforsecurity=False).digest(),
    "crc32": lambda body: zlib.crc32(body).to_bytes(4, "big"),
}
_DATED = frozenset(
    {
        "PutObject",
        "CompleteMultipartUpload",
        "CreateRole",
        "CreateFunction",
        "UpdateFunctionCode",
        "UpdateFunctionConfiguration",
    }
)
SERVED = frozenset({"s3", "sts", "iam", "cloudwatch", "logs", "lambda"})
# moto keeps its state per process and is not made for threads: one thread for all doubles.
_THREAD = ThreadPoolExecutor(1, thread_name_prefix="moto")
_app: Any = None  # moto's WSGI application; imported on first use, since that takes a second


class Others:
    """Calls moto for one account."""

    def __init__(
        self,
        account: str,
        region: str,
        credentials: dict[str, Credentials],
        clock: Callable[[], datetime],
    ) -> None:
        self._account = account
        self._region = region
        self._clock = clock
        self._begun: dict[str, str] = {}
        """When each upload in parts was begun; moto says 2010 of all."""
        self._credentials = credentials
        self._used = False
        self.executor: Executor = _THREAD
        """Where moto runs."""
        self._left: list[tuple[str, bytes]] = []

    def leave(self, url: str, data: bytes) -> None:
        """Put an object into S3 for a job, in the account's own name: before the next request."""
        self._used = True
        self._left.append((url, data))

    async def __call__(self, what: Asked, signed: Signed, caller: Caller) -> Reply:
        """Answer a request that is not for SageMaker."""
        if what.service not in SERVED:
            raise not_modelled(what.service)
        if what.operation == "GetCallerIdentity":
            return _identity(caller, self._account)
        if what.service == "s3":
            _check_sums(signed)
        self._used = True
        loop = asyncio.get_running_loop()
        reply = await loop.run_in_executor(self.executor, self._call, signed)
        if what.operation in _DATED and reply.status < 300:
            self._date(what, signed)
        if what.operation == "CreateMultipartUpload":
            upload = re.search("<UploadId>([^<]+)", reply.body.decode())
            self._begun[upload[1] if upload else ""] = f"{self._clock():%Y-%m-%dT%H:%M:%S.000Z}"
        if what.operation == "ListMultipartUploads":
            return replace(reply, body=self._dated(reply.body.decode()).encode())
        if what.operation == "AssumeRole" and reply.status == 200:
            self._learn(reply.body.decode())
        return reply

    def _date(self, what: Asked, signed: Signed) -> None:
        """What was just made was made now, by the account's own time."""
        now = self._clock()
        match what.service:
            case "s3":
                made = self._s3().buckets[what.uri["Bucket"]].keys[what.uri["Key"]]
                made.last_modified = now.replace(tzinfo=None)
            case "iam":
                name = parse_qs(signed.body.decode())["RoleName"][0]
                self._iam().get_role(name).create_date = now.replace(tzinfo=None)
            case "lambda":
                name = what.uri.get("FunctionName") or json.loads(signed.body)["FunctionName"]
                for function in self._functions().list_functions("ALL"):
                    if function.function_name == name:
                        function.last_modified = f"{now:%Y-%m-%dT%H:%M:%S}.000+0000"

    def functions(self) -> Mapping[str, Mapping[str, str]]:
        """The tags of all functions by ARN, past all doors."""
        found = self._functions().list_functions() if self._used else ()
        return {function.function_arn: dict(function.tags) for function in found}

    def roles(self) -> Mapping[str, Mapping[str, str]]:
        """The tags of all roles by name, past all doors."""
        roles = self._iam().roles.values() if self._used else ()
        return {role.name: {tag["Key"]: tag["Value"] for tag in role.tags} for role in roles}

    def tags(self, bucket: str) -> Mapping[str, Mapping[str, str]]:
        """The tags of all that a bucket holds by key, past all doors."""
        backend = self._s3()
        keys = backend.buckets[bucket].keys
        return {
            key: {t["Key"]: t["Value"] for t in backend.get_object_tagging(keys[key])["Tags"]}
            for key in keys
        }

    def _put_what_is_left(self) -> None:
        from moto.backends import get_backend

        backend = get_backend("s3")[self._account]["aws"]
        left, self._left = self._left, []
        for url, data in left:
            bucket, _, key = url.removeprefix("s3://").partition("/")
            if bucket in backend.buckets:
                backend.put_object(bucket, key, data)

    def _call(self, signed: Signed) -> Reply:
        from werkzeug.test import EnvironBuilder, run_wsgi_app

        self._put_what_is_left()

        path, _, query = signed.target.partition("?")
        headers = {**signed.headers, "x-moto-account-id": self._account}
        builder = EnvironBuilder(
            path=path,
            query_string=query,
            method=signed.method,
            headers=list(headers.items()),
            data=signed.body,
        )
        environ = builder.get_environ()
        # EnvironBuilder decodes the path, and with it what S3 keys had encoded.
        environ["RAW_URI"] = environ["REQUEST_URI"] = signed.target
        parts, status, found = run_wsgi_app(_application(), environ, buffered=True)
        kept = {k: v for k, v in found.items() if k.lower() != "content-length"}
        body = b"".join(parts)
        if signed.method == "HEAD":
            kept["Content-Length"] = found.get("Content-Length", "0")
        return Reply(int(status.split()[0]), body, kept)

    def _dated(self, listed: str) -> str:
        """A list of uploads with the times at which they were begun."""
        return re.sub(
            r"(<UploadId>([^<]+)</UploadId>.*?<Initiated>)[^<]+",
            lambda found: found[1] + self._begun.get(found[2], ""),
            listed,
            flags=re.DOTALL,
        )

    def _learn(self, answer: str) -> None:
        """Know the keys that an assumed role was given."""
        found = {
            tag: re.search(f"<{tag}>([^<]+)</{tag}>", answer)
            for tag in ("AccessKeyId", "SecretAccessKey", "SessionToken", "Arn")
        }
        key, secret, token, arn = (match[1] if match else "" for match in found.values())
        self._credentials[key] = Credentials(key, secret, arn, token)

    def make_bucket(self, name: str, region: str) -> None:
        """A bucket, past all doors."""
        self._used = True
        self._s3().create_bucket(name, region)

    def keys(self, bucket: str) -> list[str]:
        """What a bucket holds, past all doors."""
        return sorted(self._s3().buckets[bucket].keys.keys())

    def _s3(self) -> Any:
        from moto.backends import get_backend

        return get_backend("s3")[self._account]["aws"]

    def _iam(self) -> Any:
        from moto.backends import get_backend

        return get_backend("iam")[self._account]["aws"]

    def _functions(self) -> Any:
        from moto.backends import get_backend

        return get_backend("lambda")[self._account][self._region]

    async def forget(self) -> None:
        """Let go of what this account held."""
        if self._used:
            await asyncio.get_running_loop().run_in_executor(self.executor, self._forget)

    def forget_now(self) -> None:
        """The same, where no event loop runs."""
        if self._used:
            self._forget()

    def _forget(self) -> None:
        from moto.backends import get_backend

        for service in ("s3", "sts", "iam", "cloudwatch", "logs", "lambda"):
            get_backend(service).pop(self._account, None)
        owners: Any = getattr(get_backend("s3"), "bucket_accounts")  # noqa: B009  # not in its types
        for name in [n for n, (_, account) in owners.items() if account == self._account]:
            del owners[name]


def _identity(caller: Caller, account: str) -> Reply:
    """Who calls, by the keys that signed."""
    told = f"<Arn>{caller.credentials.principal}</Arn><Account>{account}</Account>"
    told += f"<UserId>{caller.credentials.access_key}:windlass</UserId>"
    inner = f"<GetCallerIdentityResult>{told}</GetCallerIdentityResult>"
    meta = f"<ResponseMetadata><RequestId>{uuid4()}</RequestId></ResponseMetadata>"
    text = f"<GetCallerIdentityResponse>{inner}{meta}</GetCallerIdentityResponse>"
    return Reply(200, text.encode(), {"Content-Type": "text/xml"})


def _check_sums(signed: Signed) -> None:
    """Raises Refusal when a body is not what its checksum says."""
    for name, compute in _SUMS.items():
        given = signed.headers.get(f"x-amz-checksum-{name}")
        if (
            given is None
            or signed.headers.get("x-amz-checksum-type")
            or "uploadId" in (signed.target if signed.method == "POST" else "")
        ):
            continue
        if base64.b64encode(compute(signed.body)).decode() != given:
            raise refuse(BAD_DIGEST, algorithm=name.upper())


def _application() -> Any:
    global _app
    if _app is None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        _app = DomainDispatcherApplication(create_backend_app)
    return _app
