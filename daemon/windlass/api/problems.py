"""Refusals of the API: every error is ``{"error": ..., "hint": ...}``, never a traceback."""

from __future__ import annotations

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from windlass.api.views import Problem
from windlass.store.base import StoreError
from windlass_adapters.base import AdapterError, TerminalError
from windlass_schemas import KINDS, Key

log = structlog.get_logger()


class ProblemError(Exception):
    """A request that is refused, with the HTTP status and what to do."""

    def __init__(self, status: int, error: str, hint: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.hint = hint


def problem(status: int, error: str, hint: str) -> JSONResponse:
    """The response of a refusal."""
    return JSONResponse(Problem(error=error, hint=hint).model_dump(), status_code=status)


async def send_problem(
    scope: Scope, receive: Receive, send: Send, status: int, error: str, hint: str
) -> None:
    """The same for code below the routes."""
    await problem(status, error, hint)(scope, receive, send)


def split_hint(message: str) -> tuple[str, str]:
    """The contracts' messages say what, then after the last semicolon what to do."""
    what, _, todo = message.rpartition("; ")
    return (what, todo) if what else (message, "see the daemon's log, and: windlass doctor")


def key_from(kind: str, namespace: str, name: str) -> Key:
    """The key that a path names; the kind's case does not matter. Raises ProblemError (404)."""
    try:
        key = Key.parse(f"{kind}/{namespace}/{name}")
    except ValueError as error:
        raise ProblemError(404, *split_hint(str(error))) from error
    check_kind(key.kind)
    return key


def check_kind(kind: str) -> None:
    """Refuse a kind that there is not. Raises ProblemError (404)."""
    if kind not in KINDS:
        raise ProblemError(404, f"there is no kind {kind!r}", f"kinds are {', '.join(KINDS)}")


def install(app: FastAPI) -> None:
    """Give the app an answer to every error that its routes may raise."""

    @app.exception_handler(ProblemError)
    async def refused(_request: Request, error: ProblemError) -> JSONResponse:
        return problem(error.status, error.error, error.hint)

    @app.exception_handler(StoreError)
    async def store_failed(_request: Request, error: StoreError) -> JSONResponse:
        return problem(503, *split_hint(str(error)))

    @app.exception_handler(AdapterError)
    async def backend_failed(_request: Request, error: AdapterError) -> JSONResponse:
        status = 409 if isinstance(error, TerminalError) else 503
        return problem(status, *split_hint(str(error)))

    @app.exception_handler(TimeoutError)
    async def too_slow(_request: Request, _error: TimeoutError) -> JSONResponse:
        return problem(503, "the target did not answer in time", "look at the target; try again")

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: Request, error: RequestValidationError) -> JSONResponse:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
            for fault in error.errors()
        )
        return problem(422, f"the request is malformed: {faults}", "see /docs")

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, error: HTTPException) -> JSONResponse:
        place = f"{request.method} {request.url.path}"
        return problem(error.status_code, f"{place}: {error.detail}", "see /docs for what there is")

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("request.failed", path=request.url.path, exc_info=error)
        return problem(
            500,
            f"a fault in Windlass itself ({type(error).__name__})",
            "the daemon's log has the details; please report it",
        )
