"""The public socket's connections: made, swept for the slow, and drained at the end.

Outside the eight hops.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Self

from windlass.serving.connection import Connection, Routes
from windlass.serving.http import Limits
from windlass.serving.process import BACKLOG

STOP_GRACE = 30
"""Seconds that requests under way get at a stop."""
_SWEEP = 1.0
"""Seconds between two looks for slow clients."""
_POLL = 0.02
"""Seconds between two looks whether the last connection has ended; they end by themselves."""


class Listener:
    """Use inside ``async with``; leaving it takes no new request and lets the others end."""

    def __init__(
        self,
        routes: Routes,
        limits: Limits,
        public: socket.socket,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._routes = routes
        self._limits = limits
        self._public = public
        self._tls = tls
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._sweeping: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._connect, sock=self._public, backlog=BACKLOG, ssl=self._tls
        )
        self._sweep()
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for connection in list(self._connections):
            connection.finish()
        loop = asyncio.get_running_loop()
        end = loop.time() + STOP_GRACE
        while self._connections and loop.time() < end:  # noqa: ASYNC110 - see _POLL
            await asyncio.sleep(_POLL)
        if self._sweeping is not None:
            self._sweeping.cancel()

    def _connect(self) -> Connection:
        return Connection(self._routes, self._limits, self._connections)

    def sweep(self) -> None:
        """Look for slow clients; called once a second."""
        for connection in list(self._connections):
            connection.sweep(_SWEEP)

    def _sweep(self) -> None:
        self.sweep()
        self._sweeping = asyncio.get_running_loop().call_later(_SWEEP, self._sweep)
