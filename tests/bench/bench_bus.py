"""The bus in numbers: ``python tests/bench/bench_bus.py``. Ratios are of one run on one broker.

- status events out of the outbox, confirmed, beside a bare aio-pika publisher with confirms;
- ten thousand spec messages, one in a hundred bad, doubled or out of order: the exact end, and how
  fast.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import aio_pika
import structlog
from pydantic import JsonValue

from rig.bus import bus_daemon, until, until_true
from rig.events import condition_event
from rig.rabbitmq import running_broker
from windlass.bus.address import Address
from windlass.bus.events import AmqpBus
from windlass.bus.link import Link
from windlass.bus.publishing import Said, event_body
from windlass.metrics import Metrics
from windlass.sources.messages import routing_key_of
from windlass.store.sqlite import SqliteStore
from windlass_schemas import CloudEvent, Key

EVENTS = 5_000
BATCH = 500
MESSAGES = 10_000
BOUND = 600.0


def event(number: int) -> CloudEvent:
    key = Key.parse(f"Job/train-{number % 100}")
    return condition_event(f"{number % 100:032d}", key, number // 100 + 1, datetime.now(UTC))


async def bare_rate(url: str) -> float:
    """What the library does with ready-made bodies and confirms, as many under way as with us."""
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange("windlass.events", "topic", durable=True)
        queue = await channel.declare_queue("bench", durable=True)
        await queue.bind(exchange, "#")
        bodies = [event(number).model_dump_json().encode() for number in range(EVENTS)]
        began = time.perf_counter()
        for at in range(0, EVENTS, BATCH):
            await asyncio.gather(
                *(
                    exchange.publish(
                        aio_pika.Message(body, delivery_mode=2),
                        "windlass.job.default.train.ready",
                        mandatory=False,
                    )
                    for body in bodies[at : at + BATCH]
                )
            )
        taken = time.perf_counter() - began
        await queue.purge()
    return EVENTS / taken


async def outbox_rate(url: str, folder: Path) -> float:
    """From the store's outbox to confirmed and marked as published, as the relay does it."""
    store = await SqliteStore.open(folder / "windlass.db")
    database = store._db

    def fill() -> None:
        with database.transaction():
            for number in range(EVENTS):
                made = event(number)
                said = made.model_dump_json()
                database.one("insert_event", uid=made.data.uid, seq=made.data.seq, event=said)

    await database.run(fill)
    bus = AmqpBus(Metrics().bus)
    link = Link("events", Address(url), bus.serve)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(link.run())
        await until(lambda: link.state.up, "the link is up")
        began = time.perf_counter()
        while batch := await store.unpublished(BATCH):
            await bus.publish([each for _, each in batch])
            await store.published([position for position, _ in batch], datetime.now(UTC))
        taken = time.perf_counter() - began
        running.cancel()
    await store.close()
    return EVENTS / taken


def document(name: str, path: str) -> dict[str, object]:
    return {
        "apiVersion": "windlass/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"command": ["/bin/sh", "-c", f"date +%s.%N > {path}"]},
    }


def plain(value: dict[str, object]) -> dict[str, JsonValue]:
    made: dict[str, JsonValue] = json.loads(json.dumps(value))
    return made


def verdicts(metrics: Metrics) -> dict[str, int]:
    """What came of the messages so far."""
    (family,) = list(metrics.bus.consumed.collect())
    return {
        sample.labels["verdict"]: int(sample.value)
        for sample in family.samples
        if sample.name.endswith("_total")
    }


async def flood(url: str, folder: Path) -> float:
    """Messages a second until each is taken; then every object is compared with what was meant."""
    draw = random.Random(7)
    meant: dict[str, int] = {}
    messages: list[tuple[str, bytes]] = []
    for number in range(MESSAGES):
        name, value = f"job-{number % (MESSAGES // 2)}", number
        meant[name] = value
        key = Key("Job", "default", name)
        said = plain(document(name, "x"))
        said["spec"] = {"command": ["x"], "params": {"value": value}}
        said["policy"] = {"suspend": {"reason": "bench"}}
        body = event_body(Said(key, said), "/bench", f"m{number}", number + 1)
        messages.append((routing_key_of(key), body))
        roll = draw.random()
        if roll < 1 / 300:
            messages.append((routing_key_of(key), body))  # doubled
        elif roll < 2 / 300:
            messages.append((routing_key_of(key), body.replace(b"command", b"comand")
                             .replace(b'"m', b'"bad')))  # fmt: skip
    for _ in range(MESSAGES // 300):
        one, other = draw.sample(range(len(messages)), 2)
        messages[one], messages[other] = messages[other], messages[one]
    async with bus_daemon(folder, url) as daemon:
        await daemon.until_up()
        connection = await aio_pika.connect(url)
        async with connection:
            channel = await connection.channel()
            specs = await channel.get_exchange("windlass.specs", ensure=False)
            began = time.perf_counter()
            for at in range(0, len(messages), BATCH):
                await asyncio.gather(
                    *(specs.publish(aio_pika.Message(b, delivery_mode=2), k)
                      for k, b in messages[at : at + BATCH])
                )  # fmt: skip

            async def all_taken() -> bool:
                return sum(verdicts(daemon.metrics).values()) >= len(messages)

            await until_true(all_taken, "all messages are taken", BOUND)
            taken = time.perf_counter() - began
        found = {
            each.key.name: each.resource.model_dump()["spec"]["params"]["value"]
            for each in await daemon.store.list("Job")
        }
        assert found == meant, "the end state is not what was meant"
        print(f"  verdicts: {verdicts(daemon.metrics)}")
    return len(messages) / taken


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with running_broker() as broker, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = broker.url(broker.vhost())
        rounds = []
        for number in range(3):
            (folder / f"o{number}").mkdir()
            rounds.append(
                (asyncio.run(bare_rate(url)), asyncio.run(outbox_rate(url, folder / f"o{number}")))
            )
        bare, ours = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"events confirmed: {ours:,.0f}/s from the outbox, {bare:,.0f}/s bare aio-pika;"
            f" ratio {ours / bare:.2f} (to reach: 0.7 or more)"
        )
        print(f"{MESSAGES:,} spec messages, 1 % bad, doubled or out of order:")
        rate = asyncio.run(flood(broker.url(broker.vhost()), folder / "flood"))
        print(f"  exact end state; {rate:,.0f} messages/s")


if __name__ == "__main__":
    main()
