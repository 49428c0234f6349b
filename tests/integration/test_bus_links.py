"""Links to a real broker that is cut off, silenced, stopped, or emptied under them."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from pathlib import Path

import aio_pika
import aiormq
import pytest

from rig.bus import bus_daemon, subscriber, until
from rig.fault_proxy import FaultProxy
from rig.rabbitmq import Broker
from windlass.bus import link
from windlass.bus.address import Address
from windlass.bus.events import AmqpBus
from windlass.bus.publishing import Said, connected
from windlass.metrics import Metrics
from windlass_adapters.local import LocalAdapter
from windlass_schemas import Key

BOUND = 60.0
COUNT = 100


def job(name: str, epochs: int = 1) -> Said:
    document = {
        "apiVersion": "windlass/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"command": ["x"], "params": {"epochs": epochs}},
    }
    return Said(Key("Job", "default", name), json.loads(json.dumps(document)))


def through(proxy: FaultProxy, vhost: str) -> str:
    return f"amqp://guest:guest@127.0.0.1:{proxy.port}/{vhost}"


async def test_connections_that_are_cut_again_and_again_lose_and_double_nothing(
    broker: Broker, tmp_path: Path
) -> None:
    """The cuts fall into reading, writing, answering and acknowledging; the end is exact."""
    vhost = broker.vhost()
    direct = broker.url(vhost)
    async with (
        FaultProxy(broker.port) as proxy,
        bus_daemon(tmp_path / "d", through(proxy, vhost)) as daemon,
        subscriber(direct) as told,
    ):
        await daemon.until_up()
        async with connected(Address(direct), "/ci") as publisher:
            for number in range(COUNT):
                await publisher.publish(job(f"train-{number}"), 1)
                if number % 20 == 10:
                    proxy.cut()
                    await until(lambda: daemon.links.intake.state.up, "the intake is back")
        for number in range(COUNT):
            await daemon.until_object(f"Job/train-{number}", lambda o: bool(o.externals))
        objects = await daemon.store.list()
        assert len(objects) == COUNT
        assert {found.generation for found in objects} == {1}
        # What a record says is meant to be there is made a moment later.
        await until(lambda: daemon.backend.effects.total() >= COUNT, "all are made")
        await daemon.until_published()
        assert daemon.backend.effects.total() == COUNT
        logged = {event.id for _, event in await daemon.store.events(0, 100_000)}
        await until(lambda: {e.id for e in told.events} == logged, "every event has come")
        for found in objects:
            numbers = [event.data.seq for event in told.of(str(found.key))]
            assert numbers == list(range(1, len(numbers) + 1))
        assert daemon.links.intake.connects >= 3


async def test_a_message_whose_acknowledgement_is_lost_is_answered_as_a_duplicate(
    broker: Broker, tmp_path: Path
) -> None:
    """The cut falls between the durable write and the acknowledgement."""
    vhost = broker.vhost()
    direct = broker.url(vhost)
    async with (
        FaultProxy(broker.port) as proxy,
        bus_daemon(tmp_path / "d", through(proxy, vhost)) as daemon,
    ):
        await daemon.until_up()
        receive = daemon.store.receive

        async def receive_and_lose(messages, now):  # type: ignore[no-untyped-def]  # a wrapper
            receipts = await receive(messages, now)
            daemon.store.receive = receive  # type: ignore[method-assign]  # only once
            proxy.cut()
            return receipts

        daemon.store.receive = receive_and_lose  # type: ignore[method-assign]  # the cut's place
        async with connected(Address(direct), "/ci") as publisher:
            id_ = await publisher.publish(job("train"), 1)
            answer = await publisher.answer(id_, BOUND)
        assert answer.verdict == "duplicate"
        assert answer.generation == 1
        found = await daemon.get("Job/train")
        assert found is not None
        assert found.generation == 1


async def test_a_pass_begins_while_the_disk_takes_its_message_and_the_answer_waits_for_it(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is acknowledged, answered or told as an event is on the disk; a start need not be."""
    url = broker.url(broker.vhost())
    may_go, sync = threading.Event(), os.fdatasync

    def slow(descriptor: int) -> None:
        assert may_go.wait(BOUND)
        sync(descriptor)

    folder = tmp_path / "d"
    async with bus_daemon(folder, url, adapter=LocalAdapter) as daemon, subscriber(url) as told:
        await daemon.until_up()
        monkeypatch.setattr(os, "fdatasync", slow)
        try:
            async with connected(Address(url), "/ci") as publisher:
                id_ = await publisher.publish(job("train"), 1)
                await until(lambda: list(folder.glob("default/local/runs/*/exit.json")), "it ran")
                answer = asyncio.create_task(publisher.answer(id_, BOUND))
                await asyncio.wait([answer], timeout=0.5)
                assert not answer.done()
                assert daemon.metrics.bus.consumed.labels("accepted")._value.get() == 0
                assert told.events == []
                may_go.set()
                assert (await answer).verdict == "accepted"
        finally:
            may_go.set()
        await until(lambda: told.events, "its event comes")


async def test_silence_is_found_by_the_probe(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection through which nothing comes any more, with no word of its end."""
    monkeypatch.setattr(link, "PROBE", 0.5)
    monkeypatch.setattr(link, "CALL", 1.0)
    vhost = broker.vhost()
    async with (
        FaultProxy(broker.port) as proxy,
        bus_daemon(tmp_path / "d", through(proxy, vhost)) as daemon,
    ):
        await daemon.until_up()
        proxy.stall()
        await daemon.until_down()
        assert "not answer" in daemon.links.intake.state.message
        proxy.cut()
        proxy.resume()
        await daemon.until_up()
        async with connected(Address(broker.url(vhost)), "/ci") as publisher:
            answer = await publisher.answer(await publisher.publish(job("train")), BOUND)
        assert answer.ok


@pytest.mark.long
async def test_silence_is_found_within_seventy_seconds(broker: Broker, tmp_path: Path) -> None:
    """With the intervals that users have: the links are down, and readiness says so."""
    vhost = broker.vhost()
    async with (
        FaultProxy(broker.port) as proxy,
        bus_daemon(tmp_path / "d", through(proxy, vhost)) as daemon,
    ):
        await daemon.until_up()
        proxy.stall()
        await until(lambda: not any(each.state.up for each in daemon.links.all), "found", 70.0)


async def test_a_consumer_whose_queue_is_deleted_starts_anew(
    broker: Broker, tmp_path: Path
) -> None:
    """Queue and exchange are declared again, and what is published then is taken."""
    url = broker.url(broker.vhost())
    async with bus_daemon(tmp_path / "d", url) as daemon:
        await daemon.until_up()
        connection = await aio_pika.connect(url, timeout=BOUND)
        async with connection:
            channel = await connection.channel()
            await channel.queue_delete("windlass.specs")
            await until(lambda: daemon.links.intake.connects == 2, "the intake is made anew")
            await channel.exchange_delete("windlass.specs")
            await channel.queue_delete("windlass.specs")
            await until(lambda: daemon.links.intake.connects == 3, "and once more")
        await daemon.until_up()
        async with connected(Address(url), "/ci") as publisher:
            answer = await publisher.answer(await publisher.publish(job("train")), BOUND)
        assert answer.ok


async def test_an_exchange_that_is_deleted_under_the_publisher_is_made_again(
    broker: Broker, tmp_path: Path
) -> None:
    """The outbox keeps what was not confirmed, and gives it to the new exchange."""
    url = broker.url(broker.vhost())
    async with bus_daemon(tmp_path / "d", url) as daemon:
        await daemon.until_up()
        connection = await aio_pika.connect(url, timeout=BOUND)
        async with connection:
            await (await connection.channel()).exchange_delete("windlass.events")
        async with connected(Address(url), "/ci") as publisher:
            assert (await publisher.answer(await publisher.publish(job("train")), BOUND)).ok
        await daemon.until_object("Job/train", lambda o: o.seq > 0)
        await daemon.until_published()
        assert daemon.links.all[1].connects == 2


async def test_a_consumer_that_gets_nothing_of_what_waits_is_made_anew(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages lie ready, the consumer counts, and nothing comes: silent death."""
    monkeypatch.setattr(link, "PROBE", 0.5)
    url = broker.url(broker.vhost())
    connection = await aio_pika.connect(url, timeout=BOUND)
    taken: list[object] = []

    async def keep(message: object) -> None:
        taken.append(message)

    async with connection:
        # Only the first consumer of this queue gets messages, one that it never acknowledges. Ours
        # is the second: what a stuck one in the broker looks like.
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=1)
        queue = await channel.declare_queue(
            "windlass.specs",
            durable=True,
            arguments={"x-queue-type": "quorum", "x-single-active-consumer": True},
        )
        await queue.consume(keep)
        async with bus_daemon(tmp_path / "d", url) as daemon:
            await daemon.until_up()
            async with connected(Address(url), "/ci") as publisher:
                await publisher.publish(job("first"))
                await until(lambda: taken, "the other one has the first")
                before = daemon.links.intake.connects
                id_ = await publisher.publish(job("second"))
                await until(
                    lambda: daemon.links.intake.connects >= before + 2, "it is made anew twice"
                )
                await connection.close()
                assert (await publisher.answer(id_, BOUND)).ok
            await daemon.until_object("Job/first", lambda o: True)


async def test_a_queue_that_an_operator_declared_otherwise_is_used(
    broker: Broker, tmp_path: Path
) -> None:
    """Arguments of a queue cannot change; that is no reason to stay away."""
    url = broker.url(broker.vhost())
    connection = await aio_pika.connect(url, timeout=BOUND)
    async with connection:
        await (await connection.channel()).declare_queue("windlass.specs", durable=True)
    async with bus_daemon(tmp_path / "d", url) as daemon:
        await daemon.until_up()
        async with connected(Address(url), "/ci") as publisher:
            assert (await publisher.answer(await publisher.publish(job("train")), BOUND)).ok


@pytest.mark.parametrize(
    ("user", "password", "vhost", "why"),
    [
        ("guest", "wrong", "", "refuses the user"),
        ("guest", "guest", "nowhere", "no such virtual host"),
    ],
)
async def test_a_wrong_address_is_explained_and_tried_again(
    broker: Broker, tmp_path: Path, user: str, password: str, vhost: str, why: str
) -> None:
    """The message says what to mend, and never the password."""
    url = broker.url(vhost or broker.vhost(), user, password)
    async with bus_daemon(tmp_path / "d", url) as daemon:
        await until(lambda: why in daemon.links.intake.state.message, "it is explained")
        assert "wrong" not in daemon.links.intake.state.message
        await asyncio.sleep(0)


async def test_whoever_asks_a_connection_that_is_gone_hears_that_the_link_is_lost(
    broker: Broker,
) -> None:
    """It may go while somebody waits for confirmations; anything else would end the daemon."""
    connection = await aio_pika.connect(broker.url(broker.vhost()), timeout=BOUND)
    session = link.Session(connection, lambda: None, lambda _: None)
    channel = await (await session.channel()).get_underlay_channel()
    assert isinstance(channel, aiormq.Channel)
    assert not await session.held_up()
    await connection.close()
    with pytest.raises(link.LinkLostError):
        await session.held_up()
    with pytest.raises(link.LinkLostError):
        await AmqpBus(Metrics().bus)._check_broker(channel, session)
