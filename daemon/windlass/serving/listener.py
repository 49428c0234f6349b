"""The public socket's connections: made, swept for the slow, and drained at the end.

Outside the eight hops. Of a socket that several processes share, connections are taken one by one
from ``start`` to ``retire``; of one of its own, from the beginning to the end.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Self

from windlass.serving.connection import Connection, Routes
from windlass.serving.fleet.sharing import Acceptor
from windlass.serving.http import Limits
from windlass.serving.process import BACKLOG, STOP_GRACE

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
        *,
        shared: bool = False,
    ) -> None:
        self._routes = routes
        self._limits = limits
        self._public = public
        self._tls = tls
        self._connections: set[Connection] = set()
        self._shared = shared
        self._server: asyncio.Server | None = None
        self._acceptor: Acceptor | None = None
        self._sweeping: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if self._shared:
            self._public.setblocking(False)
            self._acceptor = Acceptor(self._public, self._connect, self._tls)
        else:
            self._server = await loop.create_server(
                self._connect, sock=self._public, backlog=BACKLOG, ssl=self._tls
            )
        self._sweep()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._server is not None:
            self._server.close()
        if self._acceptor is not None:
            self._acceptor.stop()
            await self._acceptor.settled()
        for connection in list(self._connections):
            connection.finish()
        await self._ended(STOP_GRACE)
        if self._sweeping is not None:
            self._sweeping.cancel()

    @property
    def open(self) -> bool:
        """Whether connections are taken."""
        return self._acceptor is None or self._acceptor.open

    def start(self) -> None:
        """Take connections from a shared socket."""
        if self._acceptor is not None:
            self._acceptor.start()

    async def retire(self, seconds: float) -> None:
        """Take no more, and ask clients to go: each is told so in its next answer.

        Who has not asked again after so many seconds is not waited for.
        """
        assert self._acceptor is not None
        self._acceptor.stop()
        await self._acceptor.settled()
        for connection in list(self._connections):
            connection.retire()
        await self._ended(seconds)

    async def _ended(self, seconds: float) -> None:
        """Wait for the last connection to end, at most so long."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while self._connections and loop.time() < end:  # noqa: ASYNC110 - see _POLL
            await asyncio.sleep(_POLL)

    def _connect(self) -> Connection:
        return Connection(self._routes, self._limits, self._connections)

    def sweep(self) -> None:
        """Look for slow clients; called once a second."""
        for connection in list(self._connections):
            connection.sweep(_SWEEP)

    def _sweep(self) -> None:
        self.sweep()
        self._sweeping = asyncio.get_running_loop().call_later(_SWEEP, self._sweep)
