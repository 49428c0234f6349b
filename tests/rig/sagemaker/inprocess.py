"""An account in this very process: the adapter's port to AWS without HTTP and signatures.

botocore writes each request and reads each answer, so that what goes over this bridge is what goes
over the wire, and the double's strictness, faults, permissions and monitor are the same. There is a
suspension before the effect and one after it: a test can kill the caller at both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import quote, urlencode

from botocore.exceptions import ClientError, ConnectionClosedError, ResponseStreamingError
from botocore.model import OperationModel
from botocore.parsers import ResponseParser, create_parser
from botocore.serialize import Serializer, create_serializer

from rig.sagemaker.front import Front
from rig.sagemaker.refusals import Refusal
from rig.sagemaker.shapes import operation_model
from rig.sagemaker.signing import Caller, Credentials, Signed
from rig.sagemaker.wire import Reply, asked, failure
from windlass_adapters.sagemaker.answers import Answer
from windlass_adapters.sagemaker.session import Clients

HOST = "127.0.0.1"


class InProcess(Clients):
    """Clients of one account of the double's."""

    def __init__(self, front: Front, credentials: Credentials) -> None:
        self._front = front
        self._credentials = credentials

    async def call(self, service: str, operation: str, arguments: Mapping[str, object]) -> Answer:
        model = operation_model(service, operation)
        assert model is not None, f"AWS has no {service} {operation}"
        signed = _request(model, service, arguments)
        await asyncio.sleep(0)  # the request is on its way
        reply = await self._ask(service, signed)
        await asyncio.sleep(0)  # the answer is on its way
        return _answer(model, reply)

    async def close(self) -> None:
        """There is no connection."""

    async def _ask(self, service: str, signed: Signed) -> Reply:
        front = self._front
        region = front.account.region
        signs_as = _signs_as(service)
        protocol = "json"
        try:
            what = asked(signs_as, signed.method, signed.target, signed.headers, signed.body)
            protocol = what.protocol
            return await front.answer(what, signed, Caller(self._credentials, region, signs_as))
        except Refusal as error:
            return failure(protocol, error)
        except ConnectionResetError as error:
            raise ConnectionClosedError(endpoint_url=f"http://{HOST}") from error


def _request(model: OperationModel, service: str, arguments: Mapping[str, object]) -> Signed:
    """What a client sends. Raises ParamValidationError, as a client does."""
    made = _serializer(model.service_model.resolved_protocol).serialize_to_request(
        dict(arguments), model
    )
    body = made["body"]
    if isinstance(body, dict):
        body = urlencode(body).encode()
    elif hasattr(body, "read"):
        body = body.read()
    elif isinstance(body, str):
        body = body.encode()
    headers = {str(name).lower(): str(value) for name, value in made["headers"].items()}
    scope = f"{_signs_as(service)}/aws4_request"
    headers["host"] = HOST
    headers["content-length"] = str(len(body or b""))
    headers["authorization"] = f"AWS4-HMAC-SHA256 Credential=K/20300101/eu-central-1/{scope}"
    path, _, fixed = str(made["url_path"]).partition("?")
    given = made.get("query_string") or {}
    query = "&".join(part for part in (fixed, urlencode(given, quote_via=quote)) if part)
    target = quote(path, safe="/-_.~%") + (f"?{query}" if query else "")
    return Signed(made["method"], target, headers, body or b"")


def _answer(model: OperationModel, reply: Reply) -> Answer:
    """What a client makes of an answer."""
    if reply.status == 0:
        raise ResponseStreamingError(error="the answer broke off")
    parser = _parser(model.service_model.resolved_protocol)
    raw = {
        "status_code": reply.status,
        "headers": _Headers({name.lower(): value for name, value in reply.headers.items()}),
        "body": reply.body,
    }
    found: dict[str, Any] = parser.parse(raw, model.output_shape)
    if reply.status >= 300:
        raise ClientError(found, model.name)
    return found


class _Headers(dict[str, str]):
    """Headers whose names have no case."""

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(key.lower(), default)

    def __getitem__(self, key: str) -> str:
        return super().__getitem__(key.lower())

    def __contains__(self, key: object) -> bool:
        return super().__contains__(str(key).lower())


def _signs_as(service: str) -> str:
    """The name of a service in a signature."""
    return {"sagemaker-runtime": "sagemaker", "cloudwatch": "monitoring"}.get(service, service)


@cache
def _serializer(protocol: str) -> Serializer:
    return create_serializer(protocol)


@cache
def _parser(protocol: str) -> ResponseParser:
    return create_parser(protocol)
