"""Spec messages on a real broker: taken once, answered, and refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import aio_pika
import pytest
from pydantic import JsonValue

from rig.bus import bus_daemon, until
from rig.rabbitmq import Broker
from windlass.bus.address import Address
from windlass.bus.publishing import PublishError, Said, connected
from windlass_schemas import Key

TRAIN = Key.parse("Job/train")
JOB: dict[str, JsonValue] = {
    "apiVersion": "windlass/v1",
    "kind": "Job",
    "metadata": {"name": "train"},
    "spec": {"entrypoint": "train.py", "outputs": {"model": "model.onnx"}},
}
SCRIPT = {"train.py": b"print('one')\n"}
BOUND = 60.0


def job(name: str = "train", **spec: object) -> Said:
    document = {**JOB, "metadata": {"name": name}, "spec": {"command": ["x"], **spec}}
    return Said(Key("Job", "default", name), json.loads(json.dumps(document)))


async def test_a_published_spec_runs_and_the_publisher_is_told(
    broker: Broker, tmp_path: Path
) -> None:
    """From the message to a run on the backend, with the script that travels in it."""
    url = broker.url(broker.vhost())
    async with bus_daemon(tmp_path / "d", url) as daemon:
        await daemon.until_up()
        async with connected(Address(url), "/ci") as publisher:
            id_ = await publisher.publish(Said(TRAIN, JOB, SCRIPT), 7)
            answer = await publisher.answer(id_, BOUND)
            assert (answer.verdict, answer.key, answer.generation) == ("accepted", TRAIN, 1)
            found = await daemon.until_object("Job/train", lambda o: bool(o.externals))
            assert (found.source, found.revision) == ("amqp:/ci", "7")
            assert found.files["train.py"].size == len(SCRIPT["train.py"])
            again = await publisher.publish(Said(TRAIN, JOB, SCRIPT), 7, id_)
            assert again == id_
            assert (await publisher.answer(id_, BOUND)).verdict == "duplicate"
            old = await publisher.publish(Said(TRAIN, JOB, SCRIPT), 6)
            assert (await publisher.answer(old, BOUND)).verdict == "stale"
            gone = await publisher.publish(Said(TRAIN, None), 8)
            assert (await publisher.answer(gone, BOUND)).verdict == "deleting"
        assert daemon.metrics.bus.consumed.labels("accepted")._value.get() == 1


async def test_yaml_as_text_is_read_by_the_loader_with_its_faults(
    broker: Broker, tmp_path: Path
) -> None:
    """A bad document is answered line by line, kept aside, told in an event, and never requeued."""
    vhost = broker.vhost()
    url = broker.url(vhost)
    text = (
        "apiVersion: windlass/v1\nkind: Job\nmetadata: {name: train}\n"
        "spec: {comand: [x], timeLimit: 1:30:00}\n"
    )
    async with bus_daemon(tmp_path / "d", url) as daemon:
        await daemon.until_up()
        async with connected(Address(url), "/ci") as publisher:
            answer = await publisher.answer(await publisher.publish(Said(TRAIN, text)), BOUND)
        assert answer.verdict == "refused"
        told = [str(fault) for fault in answer.faults]
        assert told[0].startswith("message.yaml:4:8 spec.comand: is no known field")
        assert any("base 60" in fault for fault in told)
        dead = await _dead_letters(url)
        assert [message.headers["windlass-reason"] for message in dead] == ["InvalidSpec"]
        assert json.loads(str(dead[0].headers["windlass-faults"])) == told
        assert dead[0].routing_key == "windlass.job.default.train"
        [(_, event)] = await daemon.store.events(0, 10)
        assert event.data.condition == "Refused"
        assert broker.queue_depth(vhost, "windlass.specs") == 0


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"\xff\xfe", "is not JSON"),
        (b'{"specversion":"1.0"}', "revision"),
        (b'{"specversion":"1.0","id":"1","source":"/x","revision":"1","type":"other"}', "type"),
        (b'{"specversion":"1.0","id":"1","id":"2"}', "there twice"),
        (b'{"specversion":"1.0","id":"1","source":"/x","revision":"1","type":"windlass.spec.put"'
         b',"data":{"document":{},"files":{"../x":""}}}', "no path beside the document"),
    ],
)  # fmt: skip
async def test_garbage_is_put_aside_and_what_follows_it_is_taken(
    broker: Broker, tmp_path: Path, body: bytes, why: str
) -> None:
    """One bad message never blocks the others."""
    url = broker.url(broker.vhost())
    async with bus_daemon(tmp_path / "d", url) as daemon:
        await daemon.until_up()
        connection = await aio_pika.connect(url, timeout=BOUND)
        async with connection, connected(Address(url), "/ci") as publisher:
            exchange = await (await connection.channel()).get_exchange("windlass.specs")
            await exchange.publish(aio_pika.Message(body), "windlass.job.default.train")
            answer = await publisher.answer(await publisher.publish(job()), BOUND)
            assert answer.ok
        dead = await _dead_letters(url)
        assert why in str(dead[0].headers["windlass-faults"])


async def test_a_message_with_another_routing_key_than_its_object_is_refused(
    broker: Broker, tmp_path: Path
) -> None:
    """Rights at the broker go by routing keys, so nobody may send one thing as another."""
    url = broker.url(broker.vhost())
    async with bus_daemon(tmp_path / "d", url) as daemon:
        await daemon.until_up()
        async with connected(Address(url), "/ci") as publisher:
            said = Said(Key.parse("Job/other"), JOB, SCRIPT)
            answer = await publisher.answer(await publisher.publish(said), BOUND)
        assert not answer.ok
        assert "Job/default/other" in answer.faults[0].message
        assert await daemon.get("Job/train") is None


async def test_large_files_do_not_travel(broker: Broker, tmp_path: Path) -> None:
    """The publisher is told before anything is sent, and the daemon takes none either."""
    url = broker.url(broker.vhost())
    async with bus_daemon(tmp_path / "d", url) as daemon:
        await daemon.until_up()
        async with connected(Address(url), "/ci") as publisher:
            with pytest.raises(PublishError, match=r"model\.bin the largest.*s3://"):
                await publisher.publish(Said(TRAIN, JOB, {**SCRIPT, "model.bin": bytes(2 << 20)}))


async def test_nobody_listening_is_said_at_once(broker: Broker) -> None:
    """A message without a queue to go to would be lost in silence."""
    async with connected(Address(broker.url(broker.vhost())), "/ci") as publisher:
        with pytest.raises(PublishError, match="nobody takes specs"):
            await publisher.publish(Said(TRAIN, None))


async def test_messages_wait_for_a_daemon(broker: Broker, tmp_path: Path) -> None:
    """What is published while no daemon runs is taken by the next one, in one batch."""
    url = broker.url(broker.vhost())
    async with bus_daemon(tmp_path / "d", url) as daemon:
        await daemon.until_up()
    async with connected(Address(url), "/ci") as publisher:
        for number in range(20):
            await publisher.publish(job(f"train-{number}"))
    async with bus_daemon(tmp_path / "d", url) as daemon:
        for number in range(20):
            await daemon.until_object(f"Job/train-{number}", lambda o: bool(o.externals))


async def _dead_letters(url: str) -> list[aio_pika.abc.AbstractIncomingMessage]:
    connection = await aio_pika.connect(url, timeout=BOUND)
    found = []
    async with connection:
        queue = await (await connection.channel()).get_queue("windlass.dead")
        while (message := await queue.get(fail=False, timeout=BOUND)) is not None:
            await message.ack()
            found.append(message)
    return found


async def test_a_reply_queue_of_ours_is_never_written_to(broker: Broker, tmp_path: Path) -> None:
    """Who may publish specs may not have the daemon write into its own queues."""
    vhost = broker.vhost()
    url = broker.url(vhost)
    async with bus_daemon(tmp_path / "d", url) as daemon:
        await daemon.until_up()
        connection = await aio_pika.connect(url, timeout=BOUND)
        async with connection:
            exchange = await (await connection.channel()).get_exchange("windlass.specs")
            message = aio_pika.Message(b"{}", reply_to="windlass.specs")
            await exchange.publish(message, "windlass.job.default.train")
            consumed = daemon.metrics.bus.consumed.labels("refused")._value
            await until(lambda: consumed.get() == 1, "the message is refused")
        assert broker.queue_depth(vhost, "windlass.specs") == 0
