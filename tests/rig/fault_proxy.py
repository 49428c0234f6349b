"""A TCP proxy on the loopback interface that breaks connections the way that networks do."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import Self

_CHUNK = 1 << 16


class FaultProxy:
    """Stands between a client and a server. Use inside ``async with``; clients take ``port``.

    Nothing is lost or changed on the way, unless a test asks for it.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._group: asyncio.TaskGroup | None = None
        self.port = 0
        self.accepted = 0
        """Connections taken so far."""
        self.sent = 0
        """Bytes from clients to the server so far."""
        self.cut_after: int | None = None
        """Cut everything once so many bytes more have gone to the server; then it is None again."""

    async def __aenter__(self) -> Self:
        self._group = await asyncio.TaskGroup().__aenter__()
        await self.listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.refuse()
        self._flowing.set()
        self.cut()
        assert self._group is not None
        await self._group.__aexit__(kind, error, traceback)

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._pairs)

    async def listen(self) -> None:
        """Take connections again, on the same port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Take no new connections: the server is down, as far as clients can see."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def cut(self) -> None:
        """Reset every connection, in the middle of whatever is on its way."""
        for pair in list(self._pairs):
            for writer in pair:
                _reset(writer)

    def stall(self) -> None:
        """Let nothing through any more, and say nothing: a cable that is pulled out."""
        self._flowing.clear()

    def resume(self) -> None:
        """Let everything through again that has waited."""
        self._flowing.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._group is not None
        self.accepted += 1
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            _reset(writer)
            return
        pair = (writer, far_writer)
        self._pairs.add(pair)
        self._group.create_task(self._carry(pair, reader, far_writer, outward=True))
        self._group.create_task(self._carry(pair, far_reader, writer, outward=False))

    async def _carry(
        self,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        outward: bool,
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._flowing.wait()
                if outward and self._is_last(data):
                    self.cut()
                    break
                writer.write(data)
                await writer.drain()
        self._pairs.discard(pair)
        for each in pair:
            each.close()

    def _is_last(self, data: bytes) -> bool:
        self.sent += len(data)
        if self.cut_after is None:
            return False
        self.cut_after -= len(data)
        if self.cut_after > 0:
            return False
        self.cut_after = None
        return True


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other side hears a reset and not an orderly end."""
    found = writer.get_extra_info("socket")
    with suppress(OSError):
        if found is not None:
            linger = struct.pack("ii", 1, 0)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
