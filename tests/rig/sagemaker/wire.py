"""HTTP and the protocols: which operation a request asks for, and how AWS writes its answers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import uuid4
from xml.sax.saxutils import escape

from botocore.model import OperationModel

from rig.sagemaker.refusals import Refusal
from rig.sagemaker.shapes import Json, service_model

TARGETS = {
    "SageMaker": "sagemaker",
    "AnyScaleFrontendService": "application-autoscaling",
    "ResourceGroupsTaggingAPI_20170126": "resourcegroupstaggingapi",
    "Logs_20140328": "logs",
    "GraniteServiceVersion20100801": "cloudwatch",
}
"""Services that name the operation in X-Amz-Target, by its first word."""
JSON_TYPE = "application/x-amz-json-1.1"


@dataclass(frozen=True)
class Asked:
    """An operation of a service."""

    service: str
    operation: str
    protocol: str
    """``json``, ``rest-json``, ``rest-xml``, ``query``."""
    uri: Mapping[str, str]
    """What stood in the path, by member."""


@dataclass(frozen=True)
class Reply:
    """An answer before it is sent."""

    status: int
    body: bytes
    headers: Mapping[str, str]


def asked(
    signed_as: str, method: str, target: str, headers: Mapping[str, str], body: bytes
) -> Asked:
    """What a request asks for, once it is known which service it was signed for."""
    prefix, _, operation = headers.get("x-amz-target", "").partition(".")
    if operation:
        service = TARGETS.get(prefix)
        if service is None or operation not in service_model(service).operation_names:
            raise Refusal("UnknownOperationException", "", 404)
        return Asked(service, operation, "json", {})
    split = urlsplit(target)
    if signed_as in ("sts", "iam", "monitoring"):
        form = parse_qs(body.decode("utf-8", "replace"))
        action = (form.get("Action") or parse_qs(split.query).get("Action") or ["?"])[0]
        return Asked({"monitoring": "cloudwatch"}.get(signed_as, signed_as), action, "query", {})
    service = signed_as
    if service == "sagemaker":  # what the runtime signs as
        service = "sagemaker-runtime"
    given = {*parse_qs(split.query, keep_blank_values=True), *headers}
    for operation_model, path, needed in _routes(service):
        found = path.fullmatch(split.path)
        if found and operation_model.http["method"] == method and needed <= given:
            uri = {name: unquote(value) for name, value in found.groupdict().items()}
            protocol = operation_model.service_model.metadata["protocol"]
            return Asked(service, operation_model.name, protocol, uri)
    raise Refusal("UnknownOperationException", f"{method} {split.path}", 404)


@cache
def _routes(service: str) -> list[tuple[OperationModel, re.Pattern[str], frozenset[str]]]:
    """Paths of a REST service's operations, and the queries and headers that each cannot be
    without; those that need most first."""
    model = service_model(service)
    found = []
    for name in model.operation_names:
        operation = model.operation_model(name)
        path, _, query = operation.http["requestUri"].partition("?")
        needed = {part.partition("=")[0] for part in query.split("&") if part}
        shape = operation.input_shape
        for member in shape.required_members if shape else ():
            where = shape.members[member].serialization
            if where.get("location") in ("querystring", "header"):
                needed.add(
                    where["name"].lower() if where["location"] == "header" else where["name"]
                )
        text = re.sub(
            r"\\\{(\w+)(\\\+)?\\\}",
            lambda part: f"(?P<{part[1]}>{'.+' if part[2] else '[^/]+'})",
            re.escape(path),
        )
        found.append((operation, re.compile(f"{text}/?"), frozenset(needed)))
    found.sort(key=lambda route: (-len(route[2]), -route[1].pattern.count("/")))
    return found


def failure(protocol: str, refusal: Refusal) -> Reply:
    """An error in the words of a protocol."""
    code, message = refusal.code, refusal.message
    headers = {"x-amzn-RequestId": str(uuid4())}
    if protocol in ("query", "rest-xml"):
        code = code.removesuffix("Exception") if code.startswith("ExpiredToken") else code
        inner = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
        text = f"<Error>{inner}</Error>"
        if protocol == "query":
            text = f"<ErrorResponse>{text}<RequestId>{uuid4()}</RequestId></ErrorResponse>"
        return Reply(refusal.status, text.encode(), {**headers, "Content-Type": "text/xml"})
    body: Json = {"__type": code, "message": message, **refusal.extra}
    if protocol == "rest-json":
        headers["x-amzn-ErrorType"] = code
        body = {"Message": message, "message": message, **refusal.extra}
    return Reply(refusal.status, json.dumps(body).encode(), {**headers, "Content-Type": JSON_TYPE})


def success(answer: Json | None) -> Reply:
    """A JSON 1.1 answer; None is no body at all."""
    body = b"" if answer is None else json.dumps(answer).encode()
    return Reply(200, body, {"x-amzn-RequestId": str(uuid4()), "Content-Type": JSON_TYPE})
