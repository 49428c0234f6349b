"""Admin HTTP on a unix socket: what the local adapter observes (hop 5) and applies (hop 7).

Who may open the socket may do everything; its mode is 0600. Every change returns at once.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from windlass.serving.deployments import Deployments, WrongOwnerError
from windlass.serving.orders import parse_order

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,253}[A-Za-z0-9])?")
_REMOVAL_CODES = {"gone": 200, "draining": 202, "absent": 404}


class Admin:
    """The routes and what they need."""

    def __init__(self, deployments: Deployments, version: str, stop: Callable[[], None]) -> None:
        self._deployments = deployments
        self._version = version
        self._stop = stop

    def app(self) -> Starlette:
        """The ASGI application."""
        app = Starlette(
            routes=[
                Route("/healthz", self._health),
                Route("/stop", self._stopping, methods=["POST"]),
                Route("/deployments", self._list),
                Route("/deployments/{name}", self._put, methods=["PUT"]),
                Route("/deployments/{name}", self._delete, methods=["DELETE"]),
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
        return _json(200, {"deployments": [each.view() for each in self._deployments.all()]})

    async def _put(self, request: Request) -> Response:
        name = request.path_params["name"]
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{json.dumps(name)} is no name; use letters, digits, '.', '_' and '-'"
            )
        deployment = self._deployments.put(name, parse_order(await request.body()))
        return _json(202, deployment.view())

    async def _delete(self, request: Request) -> Response:
        name, uid = request.path_params["name"], request.query_params.get("uid")
        if not uid:
            raise ValueError(
                "the query parameter uid is missing; it says whose Deployment is meant"
            )
        result = self._deployments.delete(name, uid)
        if result == "absent":
            return _json(404, {"error": f"there is no Deployment {name}"})
        return _json(_REMOVAL_CODES[result], {"name": name, "uid": uid, "state": result})


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
