"""Status events on a real broker: every transition, in order, whatever the broker does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from cloudevents.core.bindings.rabbitmq import RabbitMQMessage, from_rabbitmq_event

from rig.bus import BusDaemon, Subscriber, bus_daemon, subscriber, until
from rig.rabbitmq import Broker
from windlass.bus.address import Address
from windlass.bus.publishing import Said, connected
from windlass_schemas import Key

BOUND = 60.0


def job(name: str, epochs: int = 1) -> Said:
    spec: dict[str, object] = {"command": ["x"], "params": {"epochs": epochs}}
    document = {
        "apiVersion": "windlass/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": spec,
    }
    return Said(Key("Job", "default", name), json.loads(json.dumps(document)))


async def declare(url: str, *said: Said) -> None:
    async with connected(Address(url), "/ci") as publisher:
        for each in said:
            assert (await publisher.answer(await publisher.publish(each), BOUND)).ok


async def until_told_all(daemon: BusDaemon, told: Subscriber) -> None:
    """Wait until the subscriber has every event of the store's log."""

    def all_there() -> bool:
        return {event.id for event in told.events} >= logged

    await daemon.until_published()
    logged = {event.id for _, event in await daemon.store.events(0, 100_000)}
    await until(all_there, "the subscriber has every event")


def assert_gap_free(told: Subscriber, key: str) -> None:
    """Each event of an object once, 1, 2, 3, ... in the order of their first arrival."""
    numbers = [event.data.seq for event in told.of(key)]
    assert numbers == list(range(1, len(numbers) + 1)), key


async def test_every_transition_is_told_in_order(broker: Broker, tmp_path: Path) -> None:
    """Routing key, id and envelope are as documented, and the official library reads them."""
    url = broker.url(broker.vhost())
    names = [f"train-{number}" for number in range(10)]
    async with bus_daemon(tmp_path / "d", url) as daemon, subscriber(url) as told:
        await daemon.until_up()
        await declare(url, *(job(name) for name in names))
        for name in names:
            await daemon.until_object(f"Job/{name}", lambda o: bool(o.externals))
        for held in daemon.backend.all("run"):
            daemon.backend.finish(held.external.name)
        await declare(url, *(job(name, 2) for name in names))
        await until_told_all(daemon, told)
        for name in names:
            assert_gap_free(told, f"Job/{name}")
    first = told.of("Job/train-0")[0]
    assert told.keys[0].startswith("windlass.job.default.train-")
    assert first.id == f"{first.data.uid}:1"
    assert first.source == f"/windlass/{daemon.store.install}"


async def test_the_official_library_reads_an_event(broker: Broker, tmp_path: Path) -> None:
    """Structured mode, told by the content type; every required attribute is there."""
    url = broker.url(broker.vhost())
    connection = await aio_pika.connect(url, timeout=BOUND)
    async with connection, bus_daemon(tmp_path / "d", url) as daemon:
        await daemon.until_up()
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind("windlass.events", "windlass.job.*.train.ready")
        await declare(url, job("train"))
        message = None
        async with asyncio.timeout(BOUND):
            while message is None:
                message = await queue.get(fail=False, timeout=BOUND)
        read = from_rabbitmq_event(RabbitMQMessage({}, message.content_type, message.body))
        assert read.get_subject() == "Job/default/train"
        assert read.get_type() == "windlass.object.condition.v1"
        data = read.get_data()
        assert isinstance(data, dict)
        assert read.get_id() == f"{data['uid']}:{data['seq']}"
        assert data["condition"] == "Ready"
        assert message.message_id == read.get_id()
        assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT


async def test_a_broker_that_is_away_holds_nothing_up(broker: Broker, tmp_path: Path) -> None:
    """Passes go on, events wait in the outbox, and all of them come when the broker is back."""
    url = broker.url(broker.vhost())
    async with subscriber(url, queue="audit"):
        pass
    async with bus_daemon(tmp_path / "d", url) as daemon:
        await daemon.until_up()
        await declare(url, job("train"))
        await daemon.until_object("Job/train", lambda o: bool(o.externals))
        broker.kill()
        await daemon.until_down()
        assert all("broker" in link.state.message or "away" in link.state.message
                   for link in daemon.links.all)  # fmt: skip
        daemon.backend.finish()
        await daemon.until_object("Job/train", lambda o: o.status.is_true("Ready", 1))
        assert await daemon.store.backlog() > 0
        await asyncio.to_thread(broker.start)
        await daemon.until_up()
        async with subscriber(url, queue="audit") as told:
            await until_told_all(daemon, told)
            assert_gap_free(told, "Job/train")
        assert all(link.connects == 2 for link in daemon.links.all)


async def test_a_full_queue_of_one_subscriber_holds_up_no_other(
    broker: Broker, tmp_path: Path
) -> None:
    """A queue that refuses goes without; the others get everything, in order."""
    url = broker.url(broker.vhost())
    connection = await aio_pika.connect(url, timeout=BOUND)
    async with connection, bus_daemon(tmp_path / "d", url) as daemon, subscriber(url) as told:
        await daemon.until_up()
        arguments: dict[str, str | int] = {"x-max-length": 1, "x-overflow": "reject-publish"}
        channel = await connection.channel()
        full = await channel.declare_queue("full", durable=True, arguments=dict(arguments))
        await full.bind("windlass.events", "#")
        await declare(url, *(job(f"train-{number}") for number in range(5)))
        for number in range(5):
            await daemon.until_object(f"Job/train-{number}", lambda o: bool(o.externals))
        await until_told_all(daemon, told)
        assert daemon.metrics.bus.rejected._value.get() > 0
        for number in range(5):
            assert_gap_free(told, f"Job/train-{number}")


async def test_a_late_subscriber_asks_for_a_snapshot(broker: Broker, tmp_path: Path) -> None:
    """Every object as it is now, then the end; later events have a higher number."""
    url = broker.url(broker.vhost())
    async with bus_daemon(tmp_path / "d", url) as daemon:
        await daemon.until_up()
        await declare(url, *(job(f"train-{number}") for number in range(60)))
        await daemon.until_object("Job/train-59", lambda o: bool(o.externals))
        told = await ask(url, {})
        assert told[-1]["type"] == "windlass.snapshot.end.v1"
        assert told[-1]["data"] == {"objects": 60, "error": ""}
        assert len({event["subject"] for event in told[:-1]}) == 60
        found = await daemon.get("Job/train-7")
        assert found is not None
        one = next(event for event in told if event.get("subject") == "Job/default/train-7")
        assert one["data"]["uid"] == found.uid
        assert one["data"]["conditions"][0]["type"] == "Ready"
        [only, _] = await ask(url, {"kind": "Job", "name": "train-7"})
        assert only["subject"] == "Job/default/train-7"
        [end] = await ask(url, ["nonsense"])
        assert "kind, namespace or name" in end["data"]["error"]


Event = Mapping[str, Any]  # JSON, and a test that looks deep into it


async def ask(url: str, question: object) -> list[Event]:
    """What a snapshot holds, as any client gets it."""
    connection = await aio_pika.connect(url, timeout=BOUND)
    told: list[Event] = []
    async with connection:
        channel = await connection.channel()
        mine = await channel.declare_queue(exclusive=True)
        answers: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        await mine.consume(answers.put, no_ack=True)
        requests = await channel.get_exchange("windlass.requests")
        message = aio_pika.Message(json.dumps(question).encode(), reply_to=mine.name)
        await requests.publish(message, "snapshot", timeout=BOUND)
        async with asyncio.timeout(BOUND):
            while not told or told[-1]["type"] != "windlass.snapshot.end.v1":
                told.append(json.loads((await answers.get()).body))
    return told
