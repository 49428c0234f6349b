"""Responses that are written while something happens: the event stream and followed logs.

Such a response ends when its reader goes away or the daemon stops, whichever comes first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import structlog
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

log = structlog.get_logger()

Write = Callable[[bytes], Awaitable[None]]


class LiveResponse(Response):
    """Runs ``produce(write)`` for the body, beside a watch on the reader and on the daemon."""

    def __init__(
        self,
        produce: Callable[[Write], Awaitable[None]],
        *,
        closing: asyncio.Event,
        media_type: str,
    ) -> None:
        super().__init__(
            status_code=HTTPStatus.OK,
            media_type=media_type,
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )
        del self.headers["content-length"]
        self._produce = produce
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )

        async def write(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        async def reader_gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async def body() -> None:
            try:
                await self._produce(write)
            except (OSError, ClientDisconnect):
                pass  # the reader went away in the middle of a write
            except Exception:
                log.exception("stream.failed", path=scope["path"])

        async with asyncio.TaskGroup() as group:
            ends = [
                group.create_task(work) for work in (body(), reader_gone(), self._closing.wait())
            ]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})
