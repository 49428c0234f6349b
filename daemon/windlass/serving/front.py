"""Public HTTP: the Open Inference Protocol v2, health and metrics.

Outside the eight hops: this is the way of inference requests, and the daemon has no part in it.
Routing and limits only; ``inference`` does the work in a bounded pool of threads, so that a heavy
model never stops the event loop.

Choices where the protocol is silent: a version is the first 12 hex digits of the digest in force,
any other is 404. A model that is not ready answers 503, an unknown one 404. A process without a
Deployment is ready: it can serve.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from windlass.serving.deployments import Deployment, Deployments, Served
from windlass.serving.inference import Answer, Question, infer, refusal
from windlass.serving.metrics import Metrics
from windlass.serving.oip import model_metadata, server_metadata

JSON_LENGTH_HEADER = "inference-header-content-length"
_JSON = "application/json"
_BINARY = "application/octet-stream"
_SWALLOW = 4
"""How many times the limit is read and dropped, so that a client that only writes gets its 413."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Limits:
    """What one process takes on."""

    body: int = 64 << 20
    """Bytes of one request body."""
    under_way: int = 512
    """Requests that wait or run, over all models."""
    body_idle: float = 30.0
    """Seconds that a client may leave between two pieces of a body."""
    retry_after: int = 1
    """Seconds that a client is told to wait."""


class Front:
    """The routes and what they need."""

    def __init__(
        self,
        deployments: Deployments,
        metrics: Metrics,
        pool: Executor,
        version: str,
        limits: Limits,
    ) -> None:
        self._deployments = deployments
        self._metrics = metrics
        self._pool = pool
        self._version = version
        self._limits = limits
        self._under_way = 0

    def app(self) -> Starlette:
        """The ASGI application."""
        routes = [
            Route("/v2", self._server),
            Route("/v2/", self._server),
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
            Route("/metrics", self._scrape),
        ]
        for model in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
            routes += [
                Route(model, self._model),
                Route(f"{model}/ready", self._model_ready),
                Route(f"{model}/infer", self._infer, methods=["POST"]),
            ]
        app = Starlette(
            routes=routes,
            exception_handlers={HTTPException: _http_error, Exception: _fault},
        )
        app.router.redirect_slashes = False
        return app

    async def _server(self, request: Request) -> Response:
        return _json(200, server_metadata(self._version))

    async def _live(self, request: Request) -> Response:
        return _json(200, {"live": True})

    async def _ready(self, request: Request) -> Response:
        return _json(200, {"ready": True})

    async def _scrape(self, request: Request) -> Response:
        return Response(self._metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _model(self, request: Request) -> Response:
        found = self._find(request)
        if isinstance(found, Response):
            return found
        deployment, served = found
        signature = served.model.signature
        return _json(200, model_metadata(deployment.name, served.order.version, signature))

    async def _model_ready(self, request: Request) -> Response:
        found = self._find(request)
        if isinstance(found, Response):
            return found
        return _json(200, {"name": found[0].name, "ready": True})

    async def _infer(self, request: Request) -> Response:
        started = time.perf_counter()
        self._metrics.request_started()
        deployment = self._deployments.get(request.path_params["name"])
        code = 499  # the client went away
        try:
            response = await self._admitted(request)
            code = response.status_code
        except ClientDisconnect:
            response = Response(status_code=code)
        except Exception:
            code = 500
            raise
        finally:
            seconds = time.perf_counter() - started
            self._metrics.request_ended(deployment.name if deployment else "", code, seconds)
            if deployment is not None:
                deployment.count(code)
        return response

    async def infer(
        self, name: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One request that came by another way than HTTP: (status, headers, body)."""
        started = time.perf_counter()
        self._metrics.request_started()
        deployment = self._deployments.get(name)
        code = 500
        try:
            response = await self._answered_of(name, None, headers, body)
            code = response.status_code
        finally:
            seconds = time.perf_counter() - started
            self._metrics.request_ended(deployment.name if deployment else "", code, seconds)
            if deployment is not None:
                deployment.count(code)
        return code, dict(response.headers), bytes(response.body)

    async def _admitted(self, request: Request) -> Response:
        if self._under_way >= self._limits.under_way:
            return self._busy(f"{self._under_way} requests are waiting already; try again")
        self._under_way += 1
        try:
            return await self._answered(request)
        finally:
            self._under_way -= 1

    async def _answered(self, request: Request) -> Response:
        try:
            body = await self._body(request)
        except TimeoutError:
            return self._too_slow()
        if isinstance(body, Response):
            return body
        # Looked up after the body has come, which may take long: the newest version answers.
        name, version = request.path_params["name"], request.path_params.get("version")
        return await self._answered_of(name, version, request.headers, body)

    async def _answered_of(
        self, name: str, version: str | None, headers: Mapping[str, str], body: bytes
    ) -> Response:
        if len(body) > self._limits.body:
            return _too_large(self._limits.body)
        json_length = _json_length(headers)
        if isinstance(json_length, Response):
            return json_length
        found = self._found(name, version)
        if isinstance(found, Response):
            return found
        deployment, served = found
        question = Question(deployment.name, served.order.version, body, json_length)
        with served.lease() as model:
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._pool, infer, model, question)
        return _response(answer)

    def _find(self, request: Request) -> tuple[Deployment, Served] | Response:
        name, version = request.path_params["name"], request.path_params.get("version")
        return self._found(name, version)

    def _found(self, name: str, version: str | None) -> tuple[Deployment, Served] | Response:
        """The version in force, or the answer that says why there is none."""
        deployment = self._deployments.get(name)
        if deployment is None:
            known = ", ".join(each.name for each in self._deployments.all()) or "none"
            return _error(404, f"no model {json.dumps(name)} is served here; there are: {known}")
        served = deployment.served
        if served is None:
            if deployment.failure is None:
                return self._busy(f"model {name} is being loaded; try again")
            return self._busy(f"model {name} could not be loaded: {deployment.failure.message}")
        if version is not None and version != served.order.version:
            message = (
                f"model {name} has no version {json.dumps(version)}; {served.order.version} serves"
            )
            return _error(404, message)
        return deployment, served

    def _busy(self, message: str) -> Response:
        response = _error(503, message)
        response.headers["retry-after"] = str(self._limits.retry_after)
        return response

    async def _body(self, request: Request) -> bytes | Response:
        encoding = request.headers.get("content-encoding", "identity")
        if encoding != "identity":
            return _error(
                415, f"Content-Encoding {encoding} is not offered; send the body as it is"
            )
        limit = self._limits.body
        declared = request.headers.get("content-length", "")
        announced = declared.isdigit() and int(declared) > limit
        if announced and "expect" in request.headers:
            return _too_large(limit)
        loop, idle = asyncio.get_running_loop(), self._limits.body_idle
        chunks, size = [], 0
        async with asyncio.timeout(idle) as timer:
            async for chunk in request.stream():
                timer.reschedule(loop.time() + idle)
                size += len(chunk)
                if size > limit * _SWALLOW:
                    break
                if size <= limit and not announced:
                    chunks.append(chunk)
        return b"".join(chunks) if size <= limit else _too_large(limit)

    def _too_slow(self) -> Response:
        seconds = self._limits.body_idle
        response = _error(408, f"the body stopped coming for {seconds:g} s; send it again")
        response.headers["connection"] = "close"
        return response


def _json_length(headers: Mapping[str, str]) -> int | Response | None:
    text = headers.get(JSON_LENGTH_HEADER)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        message = (
            f"Inference-Header-Content-Length is {json.dumps(text)}; it must be a number of bytes"
        )
        return _error(400, message)
    return int(text)


def _response(answer: Answer) -> Response:
    if answer.json_length is None:
        return Response(answer.body, answer.status, media_type=_JSON)
    headers = {JSON_LENGTH_HEADER: str(answer.json_length)}
    return Response(answer.body, answer.status, headers, media_type=_BINARY)


def _json(status: int, document: Mapping[str, object]) -> Response:
    return Response(json.dumps(document), status, media_type=_JSON)


def _error(status: int, message: str) -> Response:
    return _response(refusal(status, message))


def _too_large(limit: int) -> Response:
    return _error(413, f"the body is larger than {limit} bytes; send fewer rows in one request")


async def _http_error(request: Request, error: Exception) -> Response:
    """What the router refuses: an unknown route, or a method that the route does not have."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "GET")
        response = _error(405, f"{request.url.path} takes {allowed}, not {request.method}")
        response.headers["allow"] = allowed
        return response
    return _error(
        error.status_code,
        f"there is no {request.url.path} here; see /v2, /v2/models/NAME and /v2/models/NAME/infer",
    )


async def _fault(request: Request, error: Exception) -> Response:
    log.error("fault", path=request.url.path, exc_info=error)
    return _error(500, "a fault in Windlass; the log of the serving process has the details")
