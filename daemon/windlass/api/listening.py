"""The port of the API, beside the eight hops: bound before anything starts, answered soon after.

Loading the server takes a third of a start, and nobody's edit needs it: it waits until what is
newly declared is under way. Whoever connects meanwhile waits for that, and is answered.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Coroutine
from typing import TYPE_CHECKING

from windlass.api.runtime import Runtime

if TYPE_CHECKING:
    from fastapi import FastAPI

NEWS_FIRST = 2.0
"""Seconds for which the server waits for what is newly declared, at most."""


class PortUnavailableError(Exception):
    """The API cannot listen there. The message says why and what to do."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises PortUnavailableError."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise PortUnavailableError(
            f"{host!r} is no address of this machine ({error.strerror});"
            " set WINDLASS_API_HOST to 127.0.0.1"
        ) from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortUnavailableError(
                f"port {port} on {host} is in use by another program; stop it, or take another"
                " port with --api-port (0 takes a free one)"
            ) from error
        raise PortUnavailableError(
            f"cannot listen on {host} port {port} ({error.strerror}); take another port with"
            " --api-port (0 takes a free one)"
        ) from error
    return listener


async def answer(
    runtime: Runtime,
    listener: socket.socket,
    news: Coroutine[None, None, None],
    stop: asyncio.Event,
) -> None:
    """Answer requests until ``stop`` is set, first of all after ``news``. Closes the socket."""
    waits = [asyncio.create_task(news), asyncio.create_task(stop.wait())]
    try:
        await asyncio.wait(waits, timeout=NEWS_FIRST, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.wait(waits)
    if stop.is_set():
        listener.close()
        return
    app = await asyncio.to_thread(_load, runtime)
    from windlass.api.server import serve

    await serve(app, listener, stop)


def _load(runtime: Runtime) -> FastAPI:
    """In a thread, beside the first passes."""
    from windlass.api.server import create_app

    return create_app(runtime)
