"""The front door: one port on the loopback, for all services of the account.

In turn: signature, form of the request, fault, rate, permission, operation, form of the answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import parse_qs

from aiohttp import web

from rig.sagemaker import (  # noqa: F401  # each enters its operations
    autoscaling,
    batch,
    endpoints,
    fronts,
    models,
    packages,
    removal,
    tagging,
    training,
    tuning,
)
from rig.sagemaker.account import Account
from rig.sagemaker.calls import Call, Calls
from rig.sagemaker.faults import BROKEN, Fault, Faults, refusal
from rig.sagemaker.operations import OPERATIONS, Ask
from rig.sagemaker.refusals import Refusal, not_modelled
from rig.sagemaker.runtime import Invoked, Runtime
from rig.sagemaker.shapes import Json, operation_model, request_errors, response_errors
from rig.sagemaker.signing import Caller, Credentials, Signed, verify
from rig.sagemaker.wire import Asked, Reply, asked, failure, success

NATIVE = frozenset({"sagemaker", "application-autoscaling", "resourcegroupstaggingapi"})


class Broken(Exception):
    """The double itself is wrong: it would have answered what AWS never does."""


class Watch(Protocol):
    """Looks at every call before and after its effect."""

    def before(self, asked: Asked, request: Json, principal: str) -> None: ...
    def after(self, call: Call) -> None: ...


Other = Callable[[Asked, Signed, Caller], Awaitable[Reply]]


class Front:
    """Takes requests for an account."""

    def __init__(self, account: Account, credentials: dict[str, Credentials]) -> None:
        self.account = account
        self.credentials = credentials
        self.faults = Faults()
        self.calls = Calls()
        self.watches: list[Watch] = []
        self.permits: Callable[[Asked, Json, str], None] = lambda asked, request, principal: None
        """Raises Refusal for what a principal may not do."""
        self.others: Other | None = None
        """Answers for the services that are not modelled here."""
        self.runtime = Runtime(account)
        self.expired = False
        """Whether the credentials have run out."""
        self.broken: list[str] = []

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one HTTP request."""
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        signed = Signed(request.method, request.raw_path, headers, body)
        protocol = "json" if "x-amz-target" in headers else "rest-json"
        try:
            caller = verify(signed, self.credentials)
            what = asked(caller.service, signed.method, signed.target, headers, body)
            protocol = what.protocol
            reply = await self.answer(what, signed, caller)
        except Refusal as error:
            reply = failure(protocol, error)
        except ConnectionResetError:
            _hang_up(request)
            return web.Response()
        if reply.status == 0:  # half an answer
            half = web.StreamResponse(headers={"Content-Length": str(len(reply.body) + 100)})
            await half.prepare(request)
            await half.write(reply.body)
            _hang_up(request)
            return half
        return web.Response(status=reply.status, body=reply.body, headers=reply.headers)

    async def answer(self, what: Asked, signed: Signed, caller: Caller) -> Reply:
        """Answer what somebody asks. Raises Refusal, and ConnectionResetError for no answer."""
        self.account.before_request()
        native = what.service in NATIVE
        request: Json = _parsed(signed.body) if native else _members(what, signed)
        principal = caller.credentials.principal
        note = _Note(self, what, request, principal)
        fault = self.faults.strike(what.operation, request, self.account.now)
        try:
            if self.expired:
                raise refusal(Fault("expired"), principal, _action(what))
            if fault is not None:
                await _strike_before(fault, what, principal)
            self.faults.take(what.service, what.operation, self.account.now)
            if native:
                reply = success(self.perform(what, request, principal))
            elif (what.service, what.operation) in OPERATIONS:
                self.permits(what, request, principal)
                operation = OPERATIONS[what.service, what.operation]
                reply = success(operation(Ask(self.account, request, principal)))
            elif what.operation == "InvokeEndpoint":
                self.permits(what, request, principal)
                reply = self.runtime.invoke(_invoked(what, signed))
            elif self.others is not None:
                self.permits(what, request, principal)
                reply = await self.others(what, signed, caller)
            else:
                raise not_modelled(f"{what.service} {what.operation}")
        except Refusal as error:
            note(error.code, error.rule)
            raise
        except ConnectionResetError:
            note("reset", "fault.reset")
            raise
        note("" if reply.status < 300 else str(reply.status))
        return _strike_after(fault, reply)

    def perform(self, what: Asked, request: Json, principal: str) -> Json | None:
        """Check a request, do it, and check the answer. Raises Refusal."""
        model = operation_model(what.service, what.operation)
        assert model is not None
        errors = request_errors(model.input_shape, request)
        if errors:
            some = f"{len(errors)} validation error{'s' if len(errors) > 1 else ''} detected: "
            raise Refusal("ValidationException", some + "; ".join(errors), rule="shape")
        self.permits(what, request, principal)
        operation = OPERATIONS.get((what.service, what.operation))
        if operation is None:
            raise not_modelled(what.operation)
        for watch in self.watches:
            watch.before(what, request, principal)
        answer = operation(Ask(self.account, request, principal))
        if model.output_shape is None:
            return None
        wrong = response_errors(model.output_shape, answer or {})
        if wrong:
            self.broken.append(f"{what.operation} answers {wrong}")
            raise Broken(self.broken[-1])
        return answer or {}


async def _strike_before(fault: Fault, what: Asked, principal: str) -> None:
    if fault.kind == "reset":
        raise ConnectionResetError
    if fault.kind == "slow":
        await asyncio.sleep(fault.seconds)
    if fault.kind not in BROKEN:
        raise refusal(fault, principal, _action(what))


def _strike_after(fault: Fault | None, reply: Reply) -> Reply:
    match fault.kind if fault else "":
        case "lost":
            raise ConnectionResetError
        case "half":
            return Reply(0, reply.body[: len(reply.body) // 2], {})
        case "html":
            status = fault.status if fault and fault.status else 502
            return Reply(status, b"<html>Bad gateway</html>", {"Content-Type": "text/html"})
    return reply


class _Note:
    """Enters a call into the log once its outcome is known."""

    def __init__(self, front: Front, what: Asked, request: Json, principal: str) -> None:
        self._front, self._what, self._request = front, what, request
        self._principal = principal

    def __call__(self, error: str, rule: str = "") -> None:
        what, front = self._what, self._front
        call = Call(
            front.account.now,
            what.service,
            what.operation,
            self._principal,
            self._request,
            error,
            rule,
        )
        front.calls.log.append(call)
        for watch in front.watches:
            watch.after(call)


def _parsed(body: bytes) -> Json:
    try:
        held = json.loads(body or b"{}")
    except ValueError:
        held = None
    if not isinstance(held, dict):
        raise Refusal("SerializationException", "the body is not a JSON object")
    return held


def _invoked(what: Asked, signed: Signed) -> Invoked:
    return Invoked(
        what.uri["EndpointName"],
        signed.body,
        signed.headers.get("content-type", ""),
        signed.headers.get("accept", ""),
        signed.headers,
    )


def _members(what: Asked, signed: Signed) -> Json:
    """What a request of the other services says, as far as permissions look at it."""
    if what.protocol == "query":
        form = parse_qs(signed.body.decode("utf-8", "replace"))
        return {name: values[0] for name, values in form.items()}
    if what.protocol in ("json", "rest-json") and what.service != "sagemaker-runtime":
        return {**_parsed(signed.body), **what.uri} if signed.body else dict(what.uri)
    tagged = signed.headers.get("x-amz-tagging")  # S3 tags by a header, with rights of its own
    return {**what.uri, **({"Tagging": tagged} if tagged else {})}


def _action(what: Asked) -> str:
    service = {"sagemaker-runtime": "sagemaker"}.get(what.service, what.service)
    return f"{service}:{what.operation}"


def _hang_up(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()
