"""gRPC from a socket that several processes share: connections taken one by one and passed on.

The gRPC library listens on sockets that it makes itself. With one for each worker a connection that
waits in a worker's queue would die with it; so each worker takes connections from the shared socket
as it does for HTTP, and passes their bytes to its own gRPC server by a unix socket.

A gRPC server that stops cancels calls that are just coming in. So every connection lives for
``AGE`` only, at the end of which the library lets its calls end and the client makes another:
with a process that takes some. A worker that retires waits until its own have gone that way.
"""

from __future__ import annotations

import asyncio
import socket
from typing import cast

from windlass.serving.fleet.sharing import Acceptor

AGE = 10.0
"""Seconds; the library varies it by a tenth."""
_POLL = 0.05
"""Seconds between two looks whether the last connection has gone; they go by themselves."""


class Relayed(asyncio.Protocol):
    """One end of a connection that is passed on: what comes here leaves at the other end."""

    def __init__(self, other: Relayed | None = None, among: set[Relayed] | None = None) -> None:
        self._other = other
        self._among = among if among is not None else set()
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        """What came before the other end was there."""
        self._closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has another base
        self._among.add(self)

    def data_received(self, data: bytes) -> None:
        other = self._other._transport if self._other is not None else None
        if other is None:
            self._early.append(data)
        elif not other.is_closing():
            other.write(data)

    def eof_received(self) -> bool:
        """gRPC keeps no half of a connection."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._among.discard(self)
        if self._other is not None and self._other._transport is not None:
            self._other._transport.close()

    def pause_writing(self) -> None:
        """This end is full: read no more at the other."""
        if self._other is not None and self._other._transport is not None:
            self._other._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._other is not None and self._other._transport is not None:
            self._other._transport.resume_reading()

    def join(self, other: Relayed) -> None:
        """The other end is there."""
        self._other = other
        transport = other._transport
        if transport is None:
            return
        if self._closed:
            transport.close()
            return
        for data in self._early:
            transport.write(data)
        self._early.clear()

    def hang_up(self) -> None:
        """End this end, and with it the other."""
        if self._transport is not None:
            self._transport.close()


class Relay:
    """Takes connections from the shared socket, and pairs each with one to the server."""

    def __init__(self, shared: socket.socket, path: str) -> None:
        """``path`` is the unix socket of the gRPC server."""
        shared.setblocking(False)
        self._path = path
        self._acceptor = Acceptor(shared, self._connect)
        self._near: set[Relayed] = set()
        self._joining: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Take connections from now on."""
        self._acceptor.start()

    def stop(self) -> None:
        """Take no more."""
        self._acceptor.stop()

    async def ended(self) -> None:
        """Wait until those that were taken have come to their age, and a little longer."""
        loop = asyncio.get_running_loop()
        end = loop.time() + AGE * 1.5
        while self._near and loop.time() < end:  # noqa: ASYNC110 - see _POLL
            await asyncio.sleep(_POLL)

    def _connect(self) -> Relayed:
        near = Relayed(among=self._near)
        task = asyncio.get_running_loop().create_task(self._join(near))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)
        return near

    async def _join(self, near: Relayed) -> None:
        loop = asyncio.get_running_loop()
        far = Relayed(near)
        try:
            await loop.create_unix_connection(lambda: far, self._path)
        except OSError:
            near.hang_up()  # the server is at its end: the client asks another process
        else:
            near.join(far)
