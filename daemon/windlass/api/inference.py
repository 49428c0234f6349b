"""The gateway: ``POST /v2/models/{name}/infer`` goes to whichever target serves the Deployment."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import Response

from windlass.api.objects import find
from windlass.api.problems import ProblemError, key_from
from windlass.api.runtime import Runtime
from windlass.api.views import Problem
from windlass.store.base import ExternalRecord, Object, RecordState
from windlass_adapters.base import SERVING_ROLES, Infers
from windlass_schemas import DEFAULT_NAMESPACE

MAX_BODY = 256 << 20
"""Bytes that one request may have."""
TIMEOUT = 300.0
"""Seconds that one answer may take."""

_PASSED_ON = ("content-type", "accept", "inference-header-content-length", "traceparent")
_DROPPED = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "upgrade", "content-length", "date", "server"}
)


def serving(found: Object) -> ExternalRecord | None:
    """What of a Deployment answers requests: the newest external whose role says so."""
    live = [
        record
        for record in found.externals
        if record.state is RecordState.CREATED and record.wanted.role in SERVING_ROLES
    ]
    return live[-1] if live else None


async def _body(request: Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY:
            raise ProblemError(
                413, f"the request has more than {MAX_BODY >> 20} MiB", "send smaller batches"
            )
        parts.append(part)
    return b"".join(parts)


def routes(runtime: Runtime) -> APIRouter:
    """``/v2/models/{name}/infer``."""
    router = APIRouter(prefix="/v2", tags=["inference"])

    @router.post(
        "/models/{model}/infer",
        response_class=Response,
        responses={404: {"model": Problem}, 409: {"model": Problem}, 503: {"model": Problem}},
    )
    async def infer(model: str, request: Request) -> Response:
        """One Open Inference Protocol v2 request; ``model`` is ``name`` or ``namespace.name``."""
        namespace, _, name = model.rpartition(".")
        key = key_from("Deployment", namespace or DEFAULT_NAMESPACE, name)
        found = await find(runtime, key)
        record = serving(found)
        if record is None:
            ready = found.status.condition("Ready")
            why = f": {ready.message}" if ready and ready.message else ""
            raise ProblemError(
                503, f"{key.short} is not served yet{why}", f"windlass wait {key.short} --for Ready"
            )
        adapter = await runtime.adapter(found)
        if not isinstance(adapter, Infers):
            raise ProblemError(
                409,
                f"the target of {key.short} takes no requests from here",
                f"send them to {found.status.url or 'the backend itself'}",
            )
        headers = {n: request.headers[n] for n in _PASSED_ON if n in request.headers}
        body = await _body(request)
        async with asyncio.timeout(TIMEOUT):
            reply = await adapter.infer(record.external, body, headers)
        kept = {n: v for n, v in reply.headers.items() if n.lower() not in _DROPPED}
        return Response(reply.body, status_code=reply.status, headers=kept)

    return router
