"""The bus in numbers: ``python tests/bench/bench_bus.py``. Ratios are of one run on one broker.

- status events out of the outbox, confirmed, beside a bare aio-pika publisher with confirms;
- from a spec message to the first instruction of the local Job, beside Celery's ``delay()`` to the
  first instruction of the task;
- ten thousand spec messages, one in a hundred bad, doubled or out of order: the exact end, and how
  fast.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import aio_pika
import structlog
from pydantic import JsonValue

from rig.bus import bus_daemon, until, until_true
from rig.project import Project
from rig.rabbitmq import Broker, running_broker
from windlass.bus.address import Address
from windlass.bus.events import AmqpBus
from windlass.bus.link import Link
from windlass.bus.publishing import Said, connected, event_body
from windlass.metrics import Metrics
from windlass.sources.messages import routing_key_of
from windlass.store.sqlite import SqliteStore
from windlass_schemas import CONDITION_EVENT, CloudEvent, ConditionData, Key, Reason

EVENTS = 5_000
BATCH = 500
STARTS = 30
MESSAGES = 10_000
BOUND = 600.0


def event(number: int) -> CloudEvent:
    uid, seq = f"{number % 100:032d}", number // 100 + 1
    return CloudEvent(
        id=f"{uid}:{seq}",
        source="/windlass/bench",
        type=CONDITION_EVENT,
        subject=f"Job/default/train-{number % 100}",
        time=datetime.now(UTC),
        data=ConditionData(
            uid=uid,
            seq=seq,
            generation=1,
            observed_generation=1,
            condition="Ready",
            from_status="Unknown",
            to_status="False",
            reason=Reason.PROGRESSING,
            message="attempt 1 is running",
            sync="Synced",
            health="Progressing",
            revision="0123456789abcdef",
            pass_id="0123456789ab",
        ),
    )


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


STAMP = "import sys, time; open(sys.argv[1], 'w').write(repr(time.time()))"
CELERY = """
import time
from celery import Celery
app = Celery("bench", broker={url!r})
app.conf.update(worker_prefetch_multiplier=1, task_ignore_result=True)
@app.task
def start(spec, path):
    with open(path, "w") as file:
        file.write(repr(time.time()))
"""


def celery_starts(url: str, folder: Path) -> list[float]:
    """Seconds from ``delay()`` to the first line of the task, one at a time."""
    (folder / "benchtasks.py").write_text(CELERY.format(url=url))
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "benchtasks",
        "worker",
        "-c",
        "2",
        "-l",
        "ERROR",
    ]
    with (folder / "celery.log").open("wb") as log:
        worker = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    sys.path.insert(0, str(folder))
    try:
        import benchtasks  # type: ignore[import-not-found]  # written above

        spec = json.dumps(document("x", "x"))
        return timed(lambda path: benchtasks.start.delay(spec, str(path)), folder, "celery")
    finally:
        worker.terminate()
        worker.wait(30)


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


def timed(start: Callable[[Path], object], folder: Path, what: str) -> list[float]:
    """Start one after the other; each is awaited. The first three warm up."""
    taken = []
    for number in range(STARTS + 3):
        path = folder / f"{what}-{number}"
        began = time.time()
        start(path)
        deadline = time.monotonic() + 60
        while not path.exists() or not path.read_text().strip():
            assert time.monotonic() < deadline, f"{what} does not start"
            time.sleep(0.0005)
        taken.append(float(path.read_text()) - began)
    return taken[3:]


def windlass_starts(url: str, folder: Path) -> list[float]:
    """Seconds from publishing a Job to the first instruction of its program, one at a time."""
    specs = folder / "empty"
    specs.mkdir()
    (specs / "README").write_text("specs come by messages")
    project = Project(folder, specs)
    project.environment["WINDLASS_AMQP_URL"] = url
    project.up()
    try:
        project.until(lambda: "connected to" in json.dumps(project.ask("/readyz")), "up", 60)
        loop = asyncio.new_event_loop()
        opened = connected(Address(url), "/bench")
        publisher = loop.run_until_complete(opened.__aenter__())

        def start(path: Path) -> None:
            name = path.name
            said = Said(
                Key("Job", "default", name), json.loads(json.dumps(document(name, str(path))))
            )
            loop.run_until_complete(publisher.publish(said))

        try:
            return timed(start, folder, "windlass")
        finally:
            loop.run_until_complete(opened.__aexit__(None, None, None))
            loop.close()
    finally:
        project.close()


def verdicts(metrics: Metrics) -> dict[str, int]:
    """What came of the messages so far."""
    (family,) = list(metrics.bus.consumed.collect())
    return {
        sample.labels["verdict"]: int(sample.value)
        for sample in family.samples
        if sample.name.endswith("_total")
    }


async def asked_starts(url: str, folder: Path) -> list[float]:
    """Seconds from publishing a Job to the backend's being asked to start it: all but a process."""
    taken = []
    async with bus_daemon(folder, url) as daemon:
        await daemon.until_up()
        async with connected(Address(url), "/bench") as publisher:
            for number in range(STARTS + 3):
                name = f"job-{number}"
                began = time.perf_counter()
                said = Said(Key("Job", "default", name), plain(document(name, "x")))
                await publisher.publish(said)
                while daemon.backend.effects.total() <= number:
                    await asyncio.sleep(0.0005)
                taken.append(time.perf_counter() - began)
    return taken[3:]


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


def show_starts(broker: Broker, folder: Path) -> None:
    (folder / "c").mkdir()
    (folder / "w").mkdir()
    theirs = celery_starts(broker.url(broker.vhost()), folder / "c")
    ours = windlass_starts(broker.url(broker.vhost()), folder / "w")
    asked = statistics.median(
        asyncio.run(asked_starts(broker.url(broker.vhost()), folder / "asked"))
    )
    mine, other = statistics.median(ours), statistics.median(theirs)
    print(
        f"spec message -> backend is asked to start, p50: {asked * 1e3:.1f} ms;"
        f" ratio to Celery {asked / other:.2f}"
    )
    print(
        f"spec message -> local Job runs, p50: {mine * 1e3:.1f} ms; Celery delay() -> task runs:"
        f" {other * 1e3:.1f} ms; ratio {mine / other:.2f} (to reach: 0.5 or less)"
    )


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
        show_starts(broker, folder)


if __name__ == "__main__":
    main()
