"""Inference over a real broker, answered by a real serving process."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractIncomingMessage

from rig import onnx_models
from rig.bus import until
from rig.rabbitmq import Broker
from rig.serving import Serving, tensor
from windlass.bus.address import Address
from windlass.serving.bus import UNDER_WAY, InferenceBus

BOUND = 60.0
ONE = {"inputs": [tensor("x", "FP32", [1, 2], [1.0, 2.0])]}


@pytest.fixture
def url(broker: Broker) -> str:
    return broker.url(broker.vhost())


@pytest.fixture
def serving(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    """A process that knows the broker from its environment."""
    monkeypatch.setenv("WINDLASS_AMQP_URL", url)
    with Serving(tmp_path / "state") as process:
        yield process


class Asker:
    """A client of the bus: plain library, one exclusive queue for the answers."""

    def __init__(self, channel: aio_pika.abc.AbstractChannel, replies: str) -> None:
        self._channel = channel
        self._replies = replies
        self._answers: dict[str, asyncio.Future[AbstractIncomingMessage]] = {}
        self._count = 0

    async def ask(
        self,
        name: str,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        expiration: float | None = None,
    ) -> asyncio.Future[AbstractIncomingMessage]:
        self._count += 1
        id_ = str(self._count)
        self._answers[id_] = asyncio.get_running_loop().create_future()
        message = aio_pika.Message(
            body,
            headers=dict(headers or {}),
            correlation_id=id_,
            reply_to=self._replies,
            expiration=expiration,
        )
        exchange = await self._channel.get_exchange("windlass.infer", ensure=False)
        await exchange.publish(message, name, timeout=BOUND)
        return self._answers[id_]

    async def take(self, message: AbstractIncomingMessage) -> None:
        self._answers[str(message.correlation_id)].set_result(message)


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[Asker]:
    connection = await aio_pika.connect(url, timeout=BOUND)
    async with connection:
        channel = await connection.channel(on_return_raises=True)
        replies = await channel.declare_queue(exclusive=True)
        asker = Asker(channel, replies.name)
        await replies.consume(asker.take, no_ack=True)
        yield asker


async def until_served(broker_url: str, name: str) -> None:
    """Wait until the queue of a Deployment is there."""
    connection = await aio_pika.connect(broker_url, timeout=BOUND)
    async with connection:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + BOUND
        while True:
            channel = await connection.channel()
            try:
                found = await channel.declare_queue(f"windlass.infer.{name}", passive=True)
                if found.declaration_result.consumer_count:
                    return
            except aio_pika.exceptions.ChannelClosed:
                pass
            assert loop.time() < deadline, f"nobody serves {name} over the broker"
            await asyncio.sleep(0.05)


async def test_a_request_over_the_bus_gets_the_answer_that_http_gives(
    url: str, serving: Serving, tmp_path: Path
) -> None:
    """JSON, binary tensors, and errors; matched by correlation id, with the status as a header."""
    serving.deploy("twice", onnx_models.identity(tmp_path / "twice.onnx"))
    await until_served(url, "twice")
    over_http = serving.infer("twice", ONE).json()
    async with asking(url) as asker, asyncio.timeout(BOUND):
        answer = await (await asker.ask("twice", json.dumps(ONE).encode()))
        assert answer.headers["status"] == 200
        assert json.loads(answer.body) == over_http
        wrong = await (await asker.ask("twice", b'{"inputs": []}'))
        assert wrong.headers["status"] == 400
        assert "missing input" in json.loads(wrong.body)["error"]
        head = json.dumps(
            {
                "inputs": [
                    {
                        "name": "x",
                        "datatype": "FP32",
                        "shape": [1, 2],
                        "parameters": {"binary_data_size": 8},
                    }
                ],
                "parameters": {"binary_data_output": True},
            }
        ).encode()
        length = {"Inference-Header-Content-Length": str(len(head))}
        binary = await (await asker.ask("twice", head + b"\0\0\x80?\0\0\0@", length))
        told = int(str(binary.headers["inference-header-content-length"]))
        assert binary.body[told:] == b"\0\0\x80?\0\0\0@"


async def test_a_deployment_that_nobody_serves_is_said_at_once(url: str, serving: Serving) -> None:
    """The broker returns what has no queue to go to."""
    connection = await aio_pika.connect(url, timeout=BOUND)
    async with connection:
        channel = await connection.channel()
        await channel.declare_exchange("windlass.infer", "direct", durable=True)
    async with asking(url) as asker:
        with pytest.raises(aio_pika.exceptions.PublishError):
            await asker.ask("nobody", b"{}")


async def test_what_is_too_much_is_refused_at_once_and_what_is_too_late_is_dropped(
    url: str,
) -> None:
    """Requests beyond the bound get a 503; expired ones no answer; the others theirs."""
    gate = asyncio.Event()

    async def infer(
        name: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        await gate.wait()
        return 200, {"content-type": "application/json"}, body

    bus = InferenceBus(Address(url), infer, lambda: ["slow"])
    async with asyncio.TaskGroup() as group:
        running = group.create_task(bus.run())
        await until(lambda: bus.link.state.up, "the link is up")
        async with asking(url) as asker, asyncio.timeout(BOUND):
            late = await asker.ask("slow", b"late", expiration=0.2)
            await until(lambda: bus.under_way == 1, "the late one is under way")
            await until(lambda: bus.under_way == 0, "and is dropped")
            held = [await asker.ask("slow", b"%d" % number) for number in range(UNDER_WAY)]
            await until(lambda: bus.under_way == UNDER_WAY, "all places are taken")
            refused = await (await asker.ask("slow", b"more"))
            assert refused.headers["status"] == 503
            assert "try again" in json.loads(refused.body)["error"]
            gate.set()
            answers = [await each for each in held]
            assert [answer.body for answer in answers] == [b"%d" % n for n in range(UNDER_WAY)]
            assert not late.done()
        running.cancel()


def test_the_password_is_in_no_argument(url: str, serving: Serving) -> None:
    """Everybody on a machine can read the arguments of every process."""
    arguments = Path(f"/proc/{serving.process.pid}/cmdline").read_bytes()
    assert b"amqp" not in arguments
    assert url.encode() in Path(f"/proc/{serving.process.pid}/environ").read_bytes()
    assert os.environ["WINDLASS_AMQP_URL"] == url
