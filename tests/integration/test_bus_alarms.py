"""A broker that has no room, is stopped in order, or has one queue that is of no use."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import aio_pika
import pytest
from aio_pika.exceptions import AMQPError

from rig.bus import BusDaemon, Subscriber, bus_daemon, subscriber, until
from rig.rabbitmq import Broker
from windlass.bus import events, link
from windlass.bus.address import Address
from windlass.bus.publishing import PublishError, Said, connected
from windlass.clock import utc_now
from windlass.store.base import ResumeObject, SuspendObject
from windlass_schemas import Key

BOUND = 60.0


def job(name: str) -> Said:
    return Said(
        Key("Job", "default", name),
        {
            "apiVersion": "windlass/v1",
            "kind": "Job",
            "metadata": {"name": name},
            "spec": {"command": ["x"]},
        },
    )


async def declare(url: str, *names: str) -> None:
    async with connected(Address(url), "/ci") as publisher:
        for name in names:
            assert (await publisher.answer(await publisher.publish(job(name)), BOUND)).ok


async def assert_all_told(daemon: BusDaemon, told: Subscriber) -> None:
    """The subscriber has every event of the log, of each object in order and without a gap."""
    await daemon.until_published()
    logged = {event.id for _, event in await daemon.store.events(0, 100_000)}
    await until(lambda: {event.id for event in told.events} >= logged, "every event has come")
    for found in await daemon.store.list():
        numbers = [event.data.seq for event in told.of(str(found.key))]
        assert numbers == list(range(1, len(numbers) + 1)), found.key


async def test_a_broker_without_memory_stops_no_pass_and_gets_everything_later(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An alarm: publishers are held up. Passes go on, readiness says why, nothing is lost."""
    monkeypatch.setattr(link, "PROBE", 0.5)
    monkeypatch.setattr(link, "CALL", 2.0)
    monkeypatch.setattr(events, "CALL", 2.0)
    url = broker.url(broker.vhost())
    async with bus_daemon(tmp_path / "d", url) as daemon, subscriber(url) as told:
        await daemon.until_up()
        await declare(url, "train")
        await daemon.until_object("Job/train", lambda o: bool(o.externals))
        await daemon.until_published()
        await asyncio.to_thread(set_memory, broker, "1.0e-6")
        try:
            out = daemon.links.all[1]
            daemon.backend.finish()
            await daemon.until_object("Job/train", lambda o: o.status.is_true("Ready", 1))
            # The broker takes one more message of each publisher before it holds that up.
            await _suspend_until(daemon, lambda: "low on memory" in out.state.message)
            assert not out.state.up
            assert await daemon.store.backlog() > 0
            await asyncio.sleep(3 * link.CALL)
            assert out.connects == 1, "a link that is only held up is not made anew"
        finally:
            await asyncio.to_thread(set_memory, broker, "0.6")
        await daemon.until_up()
        await assert_all_told(daemon, told)
        assert max(Counter(event.id for event in told.events).values()) == 1
        await declare(url, "after")


def set_memory(broker: Broker, share: str) -> None:
    broker.evaluate(f"vm_memory_monitor:set_vm_memory_high_watermark({share}).")


async def _suspend_until(daemon: BusDaemon, holds: Callable[[], bool]) -> None:
    """Cause events, one pass after the other, until something holds."""
    key = Key.parse("Job/train")
    for number in range(200):
        if holds():
            return
        request = SuspendObject(key, "test", "me") if number % 2 == 0 else ResumeObject(key, "me")
        daemon.controller.enqueue(await daemon.store.request(request, utc_now()))
        await asyncio.sleep(0.1)
    raise AssertionError("the broker takes everything")


@pytest.mark.parametrize("how", ["stop_app", "SIGTERM"])
async def test_a_broker_that_is_stopped_in_order_loses_and_doubles_nothing(
    broker: Broker, tmp_path: Path, how: str
) -> None:
    """In the middle of specs and events; a publisher that is told so publishes again."""
    url = broker.url(broker.vhost())
    names = [f"train-{number}" for number in range(60)]
    async with subscriber(url, queue="audit"):
        pass
    async with bus_daemon(tmp_path / "d", url) as daemon:
        await daemon.until_up()
        publishing = asyncio.create_task(publish_all(url, names))
        await until(lambda: daemon.backend.effects.total() >= 10, "some are made")
        await asyncio.to_thread(stop, broker, how)
        await daemon.until_down()
        await asyncio.to_thread(start, broker, how)
        await daemon.until_up()
        await publishing
        for name in names:
            await daemon.until_object(f"Job/{name}", lambda o: bool(o.externals))
        await until(lambda: daemon.backend.effects.total() >= len(names), "all are made")
        assert daemon.backend.effects.total() == len(names)
        assert {found.generation for found in await daemon.store.list()} == {1}
        async with subscriber(url, queue="audit") as told:
            await assert_all_told(daemon, told)


async def publish_all(url: str, names: list[str]) -> None:
    """Publish each until the broker has it."""
    left = list(names)
    while left:
        try:
            async with connected(Address(url), "/ci") as publisher:
                while left:
                    await publisher.publish(job(left[0]))
                    left.pop(0)
                    await asyncio.sleep(0.02)
        except (PublishError, OSError, AMQPError):
            await asyncio.sleep(0.5)


def stop(broker: Broker, how: str) -> None:
    if how == "SIGTERM":
        broker.stop()
    else:
        broker.evaluate("rabbit:stop().")


def start(broker: Broker, how: str) -> None:
    if how == "SIGTERM":
        broker.start()
    else:
        broker.evaluate("rabbit:start().")


async def test_a_queue_that_refuses_is_offered_an_event_more_than_once_only_at_first(
    broker: Broker, tmp_path: Path
) -> None:
    """The others get what it refuses again each time; that must have an end."""
    url = broker.url(broker.vhost())
    connection = await aio_pika.connect(url, timeout=BOUND)
    async with connection, bus_daemon(tmp_path / "d", url) as daemon, subscriber(url) as told:
        await daemon.until_up()
        channel = await connection.channel()
        full = await channel.declare_queue(
            "full", durable=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
        )
        await full.bind("windlass.events", "#")
        await declare(url, *(f"train-{number}" for number in range(5)))
        await daemon.until_published()
        await until(lambda: daemon.metrics.bus.rejected._value.get() > 0, "it has refused")
        seen = len(told.events)
        await declare(url, *(f"later-{number}" for number in range(5)))
        await assert_all_told(daemon, told)
        later = [event.id for event in told.events[seen:] if "later" in event.subject]
        assert max(Counter(later).values()) == 1
        await full.purge()
        await full.unbind("windlass.events", "#")
        await declare(url, "last")
        await assert_all_told(daemon, told)


async def test_a_queue_that_never_confirms_holds_up_no_other(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process hangs in the broker. The others get everything, once and in order."""
    monkeypatch.setattr(events, "HELD", 2.0)
    vhost = broker.vhost()
    url = broker.url(vhost)
    connection = await aio_pika.connect(url, timeout=BOUND)
    async with connection, bus_daemon(tmp_path / "d", url) as daemon, subscriber(url) as told:
        await daemon.until_up()
        stuck = await (await connection.channel()).declare_queue("stuck", durable=True)
        await stuck.bind("windlass.events", "#")
        found = f'rabbit_misc:r(<<"{vhost}">>, queue, <<"stuck">>)'
        queue = f"{{ok, Q}} = rabbit_amqqueue:lookup({found}), P = amqqueue:get_pid(Q)"
        await asyncio.to_thread(broker.evaluate, f"{queue}, sys:suspend(P).")
        try:
            names = [f"train-{number}" for number in range(20)]
            await declare(url, *names)
            await assert_all_told(daemon, told)
            assert daemon.metrics.bus.held._value.get() > 0
            assert max(Counter(event.id for event in told.events).values()) == 1
            assert daemon.links.all[1].connects == 1
        finally:
            await asyncio.to_thread(broker.evaluate, f"{queue}, sys:resume(P).")
        await daemon.until_published()
        await declare(url, "last")
        await assert_all_told(daemon, told)
