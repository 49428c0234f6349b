"""The limits of the HTTP front, with small ones so that they are reached soon."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from windlass.serving.access import Keys
from windlass.serving.connection import Connection, Exchange
from windlass.serving.deployments import Deployments
from windlass.serving.front import Front
from windlass.serving.http import Limits, Reply
from windlass.serving.inference import Inference
from windlass.serving.listener import Listener
from windlass.serving.metrics import Metrics
from windlass.serving.pages import Pages
from windlass.serving.process import public_socket
from windlass.serving.usage import Usage

HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: x\r\n"
GET = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass
class Client:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, *pieces: bytes) -> None:
        self.writer.write(b"".join(pieces))

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")[:-2]
        headers = dict(line.split(": ", 1) for line in lines)
        body = await self.reader.readexactly(int(headers["content-length"]))
        return int(first.split()[1]), headers, body

    async def error(self) -> tuple[int, str]:
        """Status and words of the next answer."""
        status, _, body = await self.answer()
        return status, str(json.loads(body)["error"])

    async def ends(self) -> bool:
        """Whether the connection ends without another answer."""
        return await self.reader.read() == b""


@asynccontextmanager
async def front(limits: Limits) -> AsyncIterator[tuple[Listener, Metrics, int]]:
    """A front without a model, in this loop."""
    metrics = Metrics()
    public = public_socket("127.0.0.1", 0)
    with ThreadPoolExecutor(1) as threads:
        async with asyncio.TaskGroup() as tasks:
            deployments = Deployments(tasks, threads, metrics.load_ended)
            inference = Inference(deployments, limits, Keys(None), Usage())
            routes = Front(inference, Pages(inference, metrics, "1.0"), metrics, limits)
            async with Listener(routes, limits, public) as listener:
                yield listener, metrics, public.getsockname()[1]


@asynccontextmanager
async def client(**limits: float) -> AsyncIterator[tuple[Client, Listener, Metrics]]:
    """One client of a front with these limits."""
    async with asyncio.timeout(20), front(Limits(**limits)) as (listener, metrics, port):  # type: ignore[arg-type]  # numbers
        streams = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield Client(*streams), listener, metrics
        finally:
            streams[1].close()


class TestBodies:
    async def test_a_body_within_the_limit_is_read_whole(self) -> None:
        async with client(body=10) as (one, _, _):
            one.send(HEAD, b"Content-Length: 10\r\n\r\n0123456789")
            assert (await one.error())[0] == 404

    async def test_a_body_in_chunks_is_stopped_at_the_limit(self) -> None:
        async with client(body=10) as (one, _, _):
            one.send(HEAD, b"Transfer-Encoding: chunked\r\n\r\n")
            one.send(b"5\r\n01234\r\n", b"6\r\n012345\r\n", b"0\r\n\r\n", GET)
            status, words = await one.error()
            assert status == 413
            assert words.startswith("the body is larger than 10 bytes")
            assert (await one.answer())[0] == 200, "the connection goes on"

    async def test_a_body_without_an_end_is_not_read_for_ever(self) -> None:
        async with client(body=10, head=1000) as (one, _, _):
            one.send(HEAD, b"Transfer-Encoding: chunked\r\n\r\n")
            one.send(*[b"1e\r\n" + b" " * 30 + b"\r\n"] * 100)
            assert (await one.error())[0] == 413
            assert await one.ends()

    async def test_chunks_come_together(self) -> None:
        async with client() as (one, _, _):
            one.send(HEAD, b"Transfer-Encoding: chunked\r\n\r\n")
            for piece in (b"1\r\n{\r\n", b"1;ext=1\r\n}\r\n0\r\nTrailer: t\r\n\r\n"):
                one.send(piece)
                await one.writer.drain()
            assert (await one.error())[0] == 404


class TestSlowClients:
    async def test_a_body_that_stops_coming_is_given_up(self) -> None:
        async with client(body_idle=0.01) as (one, listener, metrics):
            one.send(HEAD, b"Content-Length: 10\r\n\r\n0")
            while not metrics.under_way:
                await asyncio.sleep(0)
            listener.sweep()
            status, headers, body = await one.answer()
            assert status == 408
            assert b"the body stopped coming for 0.01 s; send it again" in body
            assert headers["connection"] == "close"
            assert await one.ends()
            assert metrics.under_way == 0

    async def test_a_head_that_dribbles_is_given_up_though_it_never_stops(self) -> None:
        async with client(head_time=3.5) as (one, listener, _):
            one.send(b"GET /v2 HTTP/1.1\r\n")
            for number in range(4):
                one.send(b"X-%d: 1\r\n" % number)
                await one.writer.drain()
                await asyncio.sleep(0.05)
                listener.sweep()
            assert (await one.error())[0] == 408

    async def test_an_idle_connection_ends_in_the_end(self) -> None:
        async with client(keep_alive=0.5) as (one, listener, _):
            one.send(GET)
            assert (await one.answer())[0] == 200
            listener.sweep()
            assert await one.ends()


class TestHeads:
    async def test_a_head_over_the_limit_is_a_431(self) -> None:
        async with client(head=1000) as (one, _, _):
            one.send(b"GET /v2 HTTP/1.1\r\nX: ", b"x" * 2000)
            assert (await one.error())[0] == 431
            assert await one.ends()

    @pytest.mark.parametrize(
        "lines",
        [
            b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            b"Content-Length: 5\r\nContent-Length: 6\r\n",
            b"Content-Length: +5\r\n",
            b"Content-Length: 0x5\r\n",
            b"Content-Length: 99999999999999999999999\r\n",
            b"Content-Length : 5\r\n",
            b"Transfer-Encoding: xchunked\r\n",
            b"Transfer-Encoding: chunked, gzip\r\n",
            b"Transfer-Encoding: gzip, chunked\r\n",
            b"Transfer-Encoding:\x0bchunked\r\n",
            b"X: a\rb\r\n",
            b"X: a\nContent-Length: 5\r\n",
            b" folded: 1\r\n",
            b"Upgrade: h2c\r\nConnection: upgrade\r\n",
        ],
    )
    async def test_what_two_sides_could_read_in_two_ways_ends_the_connection(
        self, lines: bytes
    ) -> None:
        async with client() as (one, _, metrics):
            one.send(HEAD, lines, b"\r\n", b"0\r\n\r\n", GET)
            status, _ = await one.error()
            assert status in (400, 501)
            assert await one.ends(), "what follows is never taken for a request"
            assert metrics.under_way == 0

    @pytest.mark.parametrize(
        "chunks",
        [b"-1\r\n", b"5;\r\n01234567", b"ffffffffffffffffff\r\n", b"5\r\n012345\r\n", b"g\r\n"],
    )
    async def test_a_broken_chunk_ends_the_connection(self, chunks: bytes) -> None:
        async with client() as (one, _, _):
            one.send(HEAD, b"Transfer-Encoding: chunked\r\n\r\n", chunks, GET)
            assert (await one.error())[0] == 400
            assert await one.ends()


class TestKeepAlive:
    async def test_requests_with_the_same_head_are_each_read_with_their_own_body(self) -> None:
        async with client() as (one, _, _):
            for body in (b"{}", b"[]", b"xx"):
                one.send(HEAD, b"Content-Length: 2\r\n\r\n", body)
                assert (await one.error())[0] == 404
            one.send(HEAD, b"Content-Length: 2\r\n\r\n{")
            await asyncio.sleep(0.05)
            one.send(b"}", GET)
            assert (await one.error())[0] == 404
            assert (await one.answer())[0] == 200

    async def test_pipelined_requests_are_answered_in_order(self) -> None:
        async with client() as (one, _, _):
            paths = [b"/v2", b"/none", b"/v2/health/live", b"/v2/health/ready"] * 50
            one.send(*[b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in paths])
            answers = [await one.answer() for _ in paths]
            assert [status for status, _, _ in answers] == [200, 404, 200, 200] * 50
            assert answers[2][2] == b'{"live": true}'

    async def test_http_1_0_and_close_are_honoured(self) -> None:
        async with client() as (one, _, _):
            one.send(b"GET /v2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert (await one.answer())[1]["connection"] == "keep-alive"
            one.send(b"GET /v2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", GET)
            assert (await one.answer())[1]["connection"] == "close"
            assert await one.ends()

    async def test_a_client_that_writes_no_more_still_gets_its_answers(self) -> None:
        async with client() as (one, _, _):
            one.send(GET, GET)
            one.writer.write_eof()
            assert [(await one.answer())[0] for _ in range(2)] == [200, 200]
            assert await one.ends()

    async def test_a_head_request_gets_a_head(self) -> None:
        async with client() as (one, _, _):
            one.send(b"HEAD /v2 HTTP/1.1\r\nHost: x\r\n\r\n", GET)
            head = await one.reader.readuntil(b"\r\n\r\n")
            assert b"content-length: " in head
            assert (await one.answer())[2] == b'{"live": true}'


class Unanswered:
    """Routes that take every request and answer none."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def begin(self, exchange: Exchange) -> None:
        return

    def answer(self, exchange: Exchange, body: bytes) -> None:
        self.bodies.append(body)

    def take(self, exchange: Exchange, body: bytes) -> None:
        self.bodies.append(body)

    def abandon(self, exchange: Exchange) -> None:
        return

    def ended(self, exchange: Exchange, reply: Reply) -> None:
        return


class Reading(asyncio.Transport):
    """Knows whether it is read from."""

    paused = False

    def pause_reading(self) -> None:
        self.paused = True


def arrives(connection: Connection, data: bytes) -> None:
    """As an event loop brings it."""
    buffer = connection.get_buffer(-1)
    buffer[: len(data)] = data
    connection.buffer_updated(len(data))


class TestPieces:
    """Requests as they come out of the socket, each in a piece of its own or not."""

    PIPELINED = 3

    @pytest.fixture
    def routes(self) -> Unanswered:
        return Unanswered()

    @pytest.fixture
    def reading(self) -> Reading:
        return Reading()

    @pytest.fixture
    def connection(self, routes: Unanswered, reading: Reading) -> Connection:
        made = Connection(routes, Limits(pipelined=self.PIPELINED), set())
        made.connection_made(reading)
        return made

    @staticmethod
    def one(body: bytes) -> bytes:
        return HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)

    def test_each_body_is_its_own_whatever_comes_after_it(
        self, connection: Connection, routes: Unanswered
    ) -> None:
        for body in (b"one", b"two", b"six"):
            arrives(connection, self.one(body))
        arrives(connection, self.one(b"ten") + self.one(b"end")[:-1])
        arrives(connection, b"d")
        assert routes.bodies == [b"one", b"two", b"six", b"ten", b"end"]

    def test_a_shorter_piece_is_not_taken_for_a_whole_request(
        self, connection: Connection, routes: Unanswered
    ) -> None:
        """What the one before has left in the buffer would make it whole."""
        arrives(connection, self.one(b"one"))
        arrives(connection, self.one(b"two")[:-1])
        assert routes.bodies == [b"one"]
        arrives(connection, b"O")
        assert routes.bodies == [b"one", b"twO"]

    def test_who_only_asks_is_not_read_from_any_more(
        self, connection: Connection, reading: Reading
    ) -> None:
        for _ in range(self.PIPELINED):
            arrives(connection, self.one(b"one"))
        assert not reading.paused
        arrives(connection, self.one(b"one"))
        assert reading.paused
