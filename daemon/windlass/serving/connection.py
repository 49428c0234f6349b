"""One client's connection: requests in, answers out, in order.

Outside the eight hops. The parser is llhttp, by way of httptools. A client that keeps its
connection sends the same head again and again: a head that is byte for byte the one before is not
parsed a second time. Answers of one connection leave in the order of its requests, whichever is
ready first.

What looks like smuggling (two lengths, a length and chunks, a broken chunk) ends the connection
with a 400: the two sides no longer agree on where a request ends.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol, cast

import httptools

from windlass.serving.http import Head, Limits, Reply, encoded, refusal, too_large

_NO_UPGRADE = "no other protocol is spoken here; leave Upgrade out"
_ARRIVED = bytearray(256 << 10)
"""Where all connections of the process receive: each looks at once at what has come to it."""
_ARRIVED_VIEW = memoryview(_ARRIVED)
_SWALLOW = 4
"""How many times the limit is read and dropped, so that a client that only writes gets its 413."""
_STILL_THERE = b"HTTP/1.1 102 Processing\r\n\r\n"
"""What any client of HTTP/1.1 skips. The system of one that is gone answers it with a reset."""
_SOON, _SELDOM = 0.1, 5.0
"""Seconds until a client that writes no more is sent that; twice as long each time."""


class Routes(Protocol):
    """What a connection hands its requests to."""

    def begin(self, exchange: Exchange) -> None:
        """The head of a request is there."""

    def answer(self, exchange: Exchange, body: bytes) -> None:
        """The body is there too: see that ``exchange.reply`` is called, now or later."""

    def take(self, exchange: Exchange, body: bytes) -> None:
        """Head and body are there at once: ``begin`` and ``answer`` in one."""

    def abandon(self, exchange: Exchange) -> None:
        """The client has gone, or was refused, before ``answer`` was called."""

    def ended(self, exchange: Exchange, reply: Reply) -> None:
        """A request that counts as begun has its answer, whether the client waits or not."""


class Exchange:
    """One request and its answer."""

    __slots__ = ("_connection", "begun", "gone", "head", "payload")

    def __init__(self, connection: Connection, head: Head) -> None:
        self._connection = connection
        self.payload: bytes | None = None
        """The answer as it goes over the wire; None while there is none."""
        self.head = head
        self.begun = 0.0
        """When an inference was let in, by ``time.perf_counter``; 0 for anything else."""
        self.gone = False
        """Whether the client has hung up."""

    def reply(self, reply: Reply) -> None:
        """Answer; once. Nothing is sent when the client has gone."""
        connection = self._connection
        if self.begun:
            connection.routes.ended(self, reply)
        if not self.gone:
            closing = connection.closing or (connection.retiring and connection.ends_with(self))
            self.payload = encoded(reply, self.head, closing)
            connection.flush()


class Connection(asyncio.BufferedProtocol):
    """One client."""

    def __init__(self, routes: Routes, limits: Limits, connections: set[Connection]) -> None:
        self.routes = routes
        self._limits = limits
        self._all = connections
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpRequestParser | None = None
        self._exchanges: deque[Exchange] = deque()
        self._same: Head | None = None
        self._head = Head()
        self._exchange: Exchange | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._received = 0
        self._messages = 0
        self._midway = False
        self._refused = False
        self._reading_paused = self._writing_paused = False
        self._waited = 0
        self.closing = False
        """Whether the connection ends after the answers that are due."""
        self.retiring = False
        """Whether the connection ends with its next answer."""
        self._still = 0

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has another base
        self._all.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._all.discard(self)
        self._transport = None
        for exchange in self._exchanges:
            exchange.gone = True
        self._drop_unfinished()
        self._exchanges.clear()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _ARRIVED_VIEW

    def buffer_updated(self, nbytes: int) -> None:
        same = self._same
        if (
            same is not None
            and same.total == nbytes
            and not self._midway
            and not self.closing
            and _ARRIVED.startswith(same.raw)
        ):
            # One whole request, as nearly all are: its body is copied once.
            self._still = 0
            exchange = Exchange(self, same)
            self._exchanges.append(exchange)
            self.routes.take(exchange, bytes(_ARRIVED_VIEW[len(same.raw) : nbytes]))
        else:
            self._arrived(bytes(_ARRIVED_VIEW[:nbytes]))
        if len(self._exchanges) > self._limits.pipelined:
            self._pause_reading()

    def _arrived(self, data: bytes) -> None:
        self._still = 0
        if self.closing:
            return
        same = self._same
        while same is not None and not self._midway and data.startswith(same.raw):
            start = len(same.raw)
            end = start + (same.length or 0)
            if len(data) < end:
                break
            exchange = Exchange(self, same)
            self._exchanges.append(exchange)
            self.routes.take(exchange, data[start:end])
            if len(data) == end:
                return
            data = data[end:]
        self._parse(data)

    def eof_received(self) -> bool:
        """The client writes no more, but may wait for answers that are due."""
        self.closing = True
        self._drop_unfinished()
        if not self._exchanges:
            return False
        asyncio.get_running_loop().call_later(_SOON, self._see_who_waits, _SOON)
        return True

    def pause_writing(self) -> None:
        self._writing_paused = True
        self._pause_reading()

    def resume_writing(self) -> None:
        self._writing_paused = False
        self._resume_reading()

    # What the parser calls

    def on_message_begin(self) -> None:
        self._head = Head()
        self._chunks = []
        self._size = 0
        self._midway = True
        self._messages += 1

    def on_url(self, url: bytes) -> None:
        self._head.path += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._exchange is not None:
            return  # a trailer, which nobody asked for
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers = self._head.headers
        headers[key] = f"{headers[key]},{text}" if key in headers else text

    def on_headers_complete(self) -> None:
        head, parser = self._head, self._parser
        if self._refused or parser is None:
            return
        head.method = parser.get_method().decode()
        head.minor = parser.get_http_version()
        head.keep_alive = parser.should_keep_alive()
        head.path, _, head.query = head.path.partition("?")
        headers = head.headers
        head.chunked = "transfer-encoding" in headers
        length = headers.get("content-length", "")
        head.length = int(length) if length.isdigit() and len(length) < 19 else None
        head.expects = headers.get("expect", "").lower() == "100-continue"
        head.plain = (
            head.keep_alive
            and head.minor == "1.1"
            and head.method != "HEAD"
            and "accept-encoding" not in headers
        )
        self._exchange = exchange = Exchange(self, head)
        self._exchanges.append(exchange)
        self.routes.begin(exchange)
        limit = self._limits.body
        if parser.should_upgrade():
            self._fail(refusal(400, _NO_UPGRADE))
        elif head.chunked and headers["transfer-encoding"].lower() != "chunked":
            self._fail(refusal(501, "of Transfer-Encoding only chunked is offered"))
        elif head.expects and (head.length or 0) > limit:
            self._fail(too_large(limit))
        elif head.expects and len(self._exchanges) == 1 and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        limit = self._limits.body
        if self._size <= limit and (self._head.length or 0) <= limit:
            self._chunks.append(body)
        elif self._chunks:
            self._chunks = []

    def on_message_complete(self) -> None:
        self._midway = False
        self._received = 0
        exchange, self._exchange = self._exchange, None
        if exchange is None or self._refused:
            return
        if not exchange.head.keep_alive:
            self.closing = True
        if self._size > self._limits.body:
            self.routes.abandon(exchange)
            exchange.reply(too_large(self._limits.body))
            return
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks = []
        self.routes.answer(exchange, body)

    # What the routes and the sweep call

    def flush(self) -> None:
        """Write the answers that are due, in order."""
        transport = self._transport
        if transport is None:
            return
        exchanges = self._exchanges
        while exchanges and (payload := exchanges[0].payload) is not None:
            exchanges.popleft()
            if not transport.is_closing():
                transport.write(payload)
        if self.closing and not exchanges:
            transport.close()
        elif self._reading_paused and len(exchanges) <= self._limits.pipelined // 2:
            self._resume_reading()

    def sweep(self, seconds: float) -> None:
        """Called every so many seconds: cut off who is too slow."""
        self._still += 1
        self._waited = self._waited + 1 if self._midway else 0
        still, waited = self._still * seconds, self._waited * seconds
        limits = self._limits
        if self._writing_paused:
            if still > limits.body_idle:
                self._abort()
        elif self._exchange is not None:
            if still > limits.body_idle or waited > limits.body_total:
                text = f"the body stopped coming for {limits.body_idle:g} s; send it again"
                self._fail(refusal(408, text))
        elif self._midway:
            if waited > limits.head_time:
                text = f"the head did not come within {limits.head_time:g} s; send it again"
                self._fail(refusal(408, text))
        elif not self._exchanges and still > limits.keep_alive and self._transport is not None:
            self._transport.close()

    def retire(self) -> None:
        """End the connection with its next answer, and tell the client so."""
        self.retiring = True

    def ends_with(self, exchange: Exchange) -> bool:
        """Whether this answer is the last of a connection that retires; then it ends after it."""
        if self._exchanges and self._exchanges[-1] is exchange:
            self.closing = True
        return self.closing

    def finish(self) -> None:
        """End the connection after the answers that are due."""
        self.closing = True
        if not self._exchanges and self._transport is not None:
            self._transport.close()

    # The rest

    def _parse(self, data: bytes) -> None:
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        limits, before = self._limits, self._head
        self._messages = 0
        end = -1 if self._midway else data.find(b"\r\n\r\n")
        if end > limits.head:
            self._fail(refusal(431, f"the head is larger than {limits.head} bytes"))
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(refusal(400, _NO_UPGRADE))
        except httptools.HttpParserError as error:
            self._fail(refusal(400, f"this is no HTTP/1.1 request: {error}"))
        if self._refused:
            return
        if end != -1 and self._head is not before and not self._midway:
            self._remember(self._head, data[: end + 4])
        if self._exchange is not None:
            if self._received > limits.body * _SWALLOW + limits.head:
                self._fail(too_large(limits.body))
        elif self._midway and self._received > limits.head:
            self._fail(refusal(431, f"the head is larger than {limits.head} bytes"))

    def _remember(self, head: Head, raw: bytes) -> None:
        """Know the head again, if it was the only one in its piece and nothing about it is odd."""
        odd = head.chunked or head.expects or not head.keep_alive or head.minor != "1.1"
        if not odd and raw.count(b"\r\n\r\n") == 1 and self._messages == 1:
            head.raw = raw
            head.total = len(raw) + (head.length or 0)
            self._same = head

    def _fail(self, reply: Reply) -> None:
        """Answer what cannot be read to its end, and end the connection."""
        if self._refused:
            return
        self._refused = self.closing = True
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            exchange = Exchange(self, Head())
            self._exchanges.append(exchange)
        elif exchange.payload is None:
            self.routes.abandon(exchange)
        exchange.reply(reply)

    def _drop_unfinished(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.gone = True
            self.routes.abandon(exchange)
            if exchange in self._exchanges:
                self._exchanges.remove(exchange)

    def _see_who_waits(self, seconds: float) -> None:
        """One who has hung up looks like one who only writes no more, until something is sent.

        The first sending brings the reset, the next one fails by it: then nothing is computed for
        nobody.
        """
        if self._transport is None or self._transport.is_closing() or not self._exchanges:
            return
        if self._exchanges[0].head.minor == "1.1" and not self._writing_paused:
            self._transport.write(_STILL_THERE)
        later = min(2 * seconds, _SELDOM)
        asyncio.get_running_loop().call_later(later, self._see_who_waits, later)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _pause_reading(self) -> None:
        if not self._reading_paused and self._transport is not None:
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if (
            self._reading_paused
            and not self._writing_paused
            and len(self._exchanges) <= self._limits.pipelined
            and self._transport is not None
        ):
            self._reading_paused = False
            self._transport.resume_reading()
