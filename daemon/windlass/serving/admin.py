"""Admin HTTP on a unix socket: what the local adapter observes (hop 5) and applies (hop 7).

Who may open the socket may do everything; its mode is 0600. Every change returns at once.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from windlass.serving.deployments import Deployments, Order, WrongOwnerError

MAX_THREADS = 256

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,253}[A-Za-z0-9])?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FIELDS = ("install", "uid", "key", "digest", "model_path")
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


def parse_order(body: bytes) -> Order:
    """Read the body of a PUT. Raises ValueError that names every wrong member."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the body is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ValueError("the body must be an object")  # noqa: TRY004 - one error type for callers
    faults = [
        f"{field} must be a text that is not empty"
        for field in _FIELDS
        if not isinstance(document.get(field), str) or not document[field]
    ]
    if not faults and not _DIGEST.fullmatch(document["digest"]):
        faults.append("digest must be sha256: and 64 lower-case hex digits")
    if not faults and (
        "\0" in document["model_path"] or not Path(document["model_path"]).is_absolute()
    ):
        faults.append("model_path must be an absolute path")
    threads = _threads(document.get("options", {}))
    if threads is None:
        faults.append(f'options must be {{"threads": N}} with N from 1 to {MAX_THREADS}')
    if unknown := sorted(set(document) - {*_FIELDS, "options"}):
        faults.append(f"unknown: {', '.join(unknown)}")
    if faults or threads is None:
        raise ValueError("; ".join(faults))
    install, uid, key, digest, path = (document[field] for field in _FIELDS)
    return Order(install, uid, key, digest, Path(path), threads)


def _threads(options: object) -> int | None:
    """The option ``threads``; None when the options are wrong."""
    if not isinstance(options, dict) or set(options) - {"threads"}:
        return None
    threads = options.get("threads", 1)
    return threads if type(threads) is int and 1 <= threads <= MAX_THREADS else None


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
