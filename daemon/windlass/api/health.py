"""Routes on the daemon itself: alive, ready, metrics, sources, and facts for the doctor."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import version

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from windlass.api.runtime import Runtime
from windlass.api.views import (
    CheckView,
    DaemonList,
    DaemonView,
    Facts,
    Readiness,
    SourceList,
    view_daemon,
    view_source,
)
from windlass.clock import utc_now
from windlass.store.base import StoreError


def routes(runtime: Runtime) -> APIRouter:
    """``/healthz``, ``/readyz``, ``/metrics``, ``/api/v1/sources`` and ``/api/v1/doctor``."""
    router = APIRouter(tags=["daemon"])

    def checks() -> tuple[CheckView, ...]:
        return tuple(
            CheckView(name=check.name, ok=check.ok, message=check.message)
            for check in runtime.health()
        )

    @router.get("/healthz")
    async def alive() -> dict[str, str]:
        """The process answers."""
        return {"status": "alive"}

    @router.get("/readyz", responses={503: {"model": Readiness}})
    async def ready() -> JSONResponse:
        """Sources, store, queue and adapters all work; 503 names the one that does not."""
        found = checks()
        answer = Readiness(ready=all(check.ok for check in found), checks=found)
        return JSONResponse(answer.model_dump(mode="json"), 200 if answer.ready else 503)

    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Numbers in Prometheus' text format."""
        with suppress(StoreError):  # that the store is away is what these numbers can tell too
            await runtime.metrics.refresh(runtime.store, utc_now())
        return Response(runtime.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    @router.get("/api/v1/sources")
    async def sources() -> SourceList:
        """Where specs come from, and what is wrong there."""
        states = await runtime.store.sources()
        return SourceList(
            sources=tuple(view_source(state) for state in states), notes=tuple(runtime.notes())
        )

    async def colleagues() -> tuple[DaemonView, ...]:
        roster = runtime.store.roster
        return tuple(view_daemon(each) for each in await roster.colleagues()) if roster else ()

    @router.get("/api/v1/daemons")
    async def daemons() -> DaemonList:
        """The daemons that share the store."""
        return DaemonList(daemons=await colleagues())

    @router.get("/api/v1/doctor")
    async def facts() -> Facts:
        """What ``windlass doctor`` wants to know."""
        return Facts(
            version=version("windlass"),
            python=platform.python_version(),
            pid=os.getpid(),
            state=str(runtime.settings.state.absolute()),
            install=runtime.store.install,
            serving_port=runtime.settings.serving_port,
            checks=checks(),
            notes=tuple(runtime.notes()),
            daemons=await colleagues(),
        )

    return router
