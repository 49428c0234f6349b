"""Admin HTTP on a unix socket: what the local adapter observes (hop 5) and applies (hop 7).

Who may open the socket may do everything; its mode is 0600. Every change returns at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from windlass.serving.orders import Order, Removal, WrongOwnerError, parse_order
from windlass.serving.process import STOP_GRACE

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,253}[A-Za-z0-9])?")
_REMOVAL_CODES = {"gone": 200, "draining": 202, "absent": 404}


class Plane(Protocol):
    """Whoever knows what is served."""

    async def views(self) -> Sequence[Mapping[str, object]]:
        """Every Deployment."""

    def order(self, name: str, order: Order) -> Mapping[str, object]:
        """Make the order the one to reach, and return at once. Raises WrongOwnerError."""

    async def remove(self, name: str, uid: str) -> Removal:
        """Take the name away. Raises WrongOwnerError."""


class Admin:
    """The routes and what they need."""

    def __init__(
        self,
        plane: Plane,
        version: str,
        stop: Callable[[], None],
        more: Sequence[Route] = (),
    ) -> None:
        self._plane = plane
        self._version = version
        self._stop = stop
        self._more = more
        self._asked = time.monotonic()
        self._app = self._routed()

    def silence(self) -> float:
        """Seconds since somebody asked."""
        return time.monotonic() - self._asked

    def begin(self) -> None:
        """Count the silence from now: before, nobody could ask."""
        self._asked = time.monotonic()

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        self._asked = time.monotonic()
        await self._app(scope, receive, send)

    def _routed(self) -> Starlette:
        app = Starlette(
            routes=[
                Route("/healthz", self._health),
                Route("/stop", self._stopping, methods=["POST"]),
                Route("/deployments", self._list),
                Route("/deployments/{name}", self._put, methods=["PUT"]),
                Route("/deployments/{name}", self._delete, methods=["DELETE"]),
                *self._more,
            ],
            exception_handlers={
                HTTPException: _http_error,
                WrongOwnerError: _conflict,
                ValueError: _bad_request,
            },
        )
        app.router.redirect_slashes = False
        return app

    async def _health(self, request: Request) -> Response:
        return _json(200, {"status": "ok", "pid": os.getpid(), "version": self._version})

    async def _stopping(self, request: Request) -> Response:
        self._stop()
        return _json(202, {"status": "stopping"})

    async def _list(self, request: Request) -> Response:
        return _json(200, {"deployments": list(await self._plane.views())})

    async def _put(self, request: Request) -> Response:
        name = request.path_params["name"]
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{json.dumps(name)} is no name; use letters, digits, '.', '_' and '-'"
            )
        return _json(202, self._plane.order(name, parse_order(await request.body())))

    async def _delete(self, request: Request) -> Response:
        name, uid = request.path_params["name"], request.query_params.get("uid")
        if not uid:
            raise ValueError(
                "the query parameter uid is missing; it says whose Deployment is meant"
            )
        result = await self._plane.remove(name, uid)
        if result == "absent":
            return _json(404, {"error": f"there is no Deployment {name}"})
        return _json(_REMOVAL_CODES[result], {"name": name, "uid": uid, "state": result})


class HttpServer(uvicorn.Server):
    """One HTTP listener of several in the same loop; signals are the process's, not its own."""

    def __init__(self, app: ASGIApp, listener: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                interface="asgi3",
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=STOP_GRACE,
            )
        )
        self._listener = listener

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def run_until_stopped(self) -> None:
        """Serve until ``should_exit`` is set and the requests under way have ended."""
        await self.serve(sockets=[self._listener])


def _json(status: int, document: Mapping[str, object]) -> Response:
    return Response(json.dumps(document), status, media_type="application/json")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    return _json(error.status_code, {"error": message})


async def _conflict(request: Request, error: Exception) -> Response:
    return _json(409, {"error": str(error)})


async def _bad_request(request: Request, error: Exception) -> Response:
    return _json(400, {"error": str(error)})
