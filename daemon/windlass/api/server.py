"""The API as a part of the daemon, beside the eight hops: stopped without being killed.

``create_app`` puts the routes together; ``serve`` runs inside the daemon's TaskGroup until ``stop``
is set, on the port of ``listening.py``.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import uvicorn
from fastapi import FastAPI

from windlass.api import events, health, inference, leftovers, logs, objects, pages, problems
from windlass.api.guard import Guard
from windlass.api.runtime import Runtime

_GRACE = 3
"""Seconds that requests under way get at a stop. Live responses end at once by themselves."""


def create_app(runtime: Runtime) -> FastAPI:
    """The whole API for one running daemon."""
    app = FastAPI(
        title="Windlass",
        version=version("windlass"),
        summary="What was declared, what was found, and what happened.",
        docs_url=None,
        redoc_url=None,
    )
    app.state.closing = closing = asyncio.Event()
    problems.install(app)
    pages.install(app)
    app.include_router(health.routes(runtime))
    app.include_router(objects.routes(runtime))
    app.include_router(logs.routes(runtime, closing))
    app.include_router(events.routes(runtime, closing))
    app.include_router(inference.routes(runtime))
    app.include_router(leftovers.routes(runtime))
    app.add_middleware(Guard, host=runtime.settings.api_host)
    return app


class _Server(uvicorn.Server):
    """Leaves signals to the daemon."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(app: FastAPI, listener: socket.socket, stop: asyncio.Event) -> None:
    """Answer requests until ``stop`` is set, then let those under way finish. Closes the socket."""
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=_GRACE,
        )
    )

    async def stop_gently() -> None:
        await stop.wait()
        app.state.closing.set()
        server.should_exit = True

    try:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(stop_gently())
            await server.serve(sockets=[listener])
            waiting.cancel()
    finally:
        app.state.closing.set()
        if server.started and not server.should_exit:  # cancelled: nobody waits for anything now
            for each in server.servers:
                each.close()
            for request in list(server.server_state.tasks):
                request.cancel()
        listener.close()
