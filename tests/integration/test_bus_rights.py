"""Who may do what on a real broker: the shipped definitions, TLS, and signed messages."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from rig.bus import bus_daemon, until
from rig.rabbitmq import Broker
from windlass.bus.address import Address
from windlass.bus.publishing import PublishError, Said, connected
from windlass.bus.signing import Publishers, PublishersError, Signer
from windlass_schemas import Key, Reason

BOUND = 60.0
DOCKER = Path(__file__).parents[2] / "docker"
USERS = ("daemon", "publisher", "subscriber", "client")
Act = Callable[[AbstractChannel], Awaitable[object]]
SECRET = "a-shared-secret-of-at-least-32-bytes"


def job(name: str = "train", namespace: str = "default") -> Said:
    document = {
        "apiVersion": "windlass/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"command": ["x"]},
    }
    return Said(Key("Job", namespace, name), json.loads(json.dumps(document)))


@pytest.fixture(scope="module")
def address_of(
    broker: Broker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Address]]:
    """The shipped definitions on the broker, with passwords from files, as compose.yaml does it."""
    folder = tmp_path_factory.mktemp("docker")
    shutil.copytree(DOCKER, folder / "docker")
    secrets = folder / "docker" / "secrets"
    subprocess.run([secrets / "make"], check=True, timeout=BOUND)
    filled = subprocess.run(
        [folder / "docker" / "rabbitmq" / "fill", secrets],
        check=True,
        capture_output=True,
        timeout=BOUND,
    ).stdout
    definitions = broker.folder / "shipped.json"
    definitions.write_bytes(filled)
    broker.control("import_definitions", str(definitions))

    def address(user: str) -> Address:
        url = f"amqps://windlass-{user}@127.0.0.1:{broker.tls_port}/windlass"
        return Address(url, f"file:{secrets / f'amqp_{user}'}", broker.certificates.authority)

    yield address
    broker.control("delete_vhost", "windlass")


@asynccontextmanager
async def channel_of(address: Address) -> AsyncIterator[AbstractChannel]:
    connection = await aio_pika.connect(address.url(), ssl_context=address.context(), timeout=BOUND)
    async with connection:
        yield await connection.channel()


async def test_each_user_can_do_its_part_over_tls_and_nothing_else(
    address_of: Callable[[str], Address], tmp_path: Path
) -> None:
    """Publisher, subscriber and client work with what they have; everything else is refused."""
    refused = aio_pika.exceptions.ChannelClosed
    async with bus_daemon(tmp_path / "d", address_of("daemon")) as daemon:
        await daemon.until_up()
        async with channel_of(address_of("subscriber")) as channel:
            queue = await channel.declare_queue("windlass.subscriber.audit", durable=True)
            await queue.bind("windlass.events", "#")
            requests = await channel.get_exchange("windlass.requests", ensure=False)
            message = aio_pika.Message(b"", reply_to=queue.name)
            await requests.publish(message, "snapshot", timeout=BOUND)
        async with connected(address_of("publisher"), "/ci") as publisher:
            answer = await publisher.answer(await publisher.publish(job()), BOUND)
            assert answer.ok
        await daemon.until_published()
        async with channel_of(address_of("subscriber")) as channel:
            queue = await channel.get_queue("windlass.subscriber.audit", ensure=False)
            types = set()
            while (found := await queue.get(fail=False, timeout=BOUND)) is not None:
                await found.ack()
                types.add(json.loads(found.body)["type"])
            assert {"windlass.snapshot.end.v1", "windlass.object.condition.v1"} <= types
        acts: tuple[tuple[str, Act], ...] = (
            ("publisher", lambda c: c.declare_queue("mine")),
            ("publisher", lambda c: c.exchange_delete("windlass.specs")),
            ("subscriber", lambda c: c.declare_queue("windlass.specs", durable=True)),
            ("subscriber", lambda c: c.queue_delete("windlass.specs")),
            ("client", lambda c: c.queue_delete("windlass.dead")),
        )
        for user, act in acts:
            async with channel_of(address_of(user)) as channel:
                with pytest.raises(refused, match="ACCESS_REFUSED"):
                    await act(channel)
        with pytest.raises(PublishError, match="does not let this user publish"):
            async with connected(address_of("subscriber"), "/ci") as publisher:
                await publisher.publish(job())


async def test_a_team_may_be_held_to_its_namespace_by_the_broker(
    broker: Broker, address_of: Callable[[str], Address], tmp_path: Path
) -> None:
    """Topic permissions look at the routing key, and the daemon checks that it is true."""
    limits = (r"^windlass\.[a-z]+\.team-a\.", "^$")
    who = ("windlass-publisher", "windlass.specs")
    broker.control("set_topic_permissions", "-p", "windlass", *who, *limits)
    try:
        async with bus_daemon(tmp_path / "d", address_of("daemon")) as daemon:
            await daemon.until_up()
            async with connected(address_of("publisher"), "/a") as publisher:
                id_ = await publisher.publish(job("train", "team-a"))
                assert (await publisher.answer(id_, BOUND)).ok
                with pytest.raises(PublishError, match="does not let this user publish"):
                    await publisher.publish(job("train", "team-b"))
    finally:
        limits = (r"^windlass\.[a-z]+\.[a-z0-9-]+\.[a-z0-9-]+$", "^$")
        broker.control("set_topic_permissions", "-p", "windlass", *who, *limits)


async def test_a_certificate_of_somebody_else_is_not_trusted(
    broker: Broker, tmp_path: Path
) -> None:
    """Without the authority's file the link stays down, and says which setting is missing."""
    url = f"amqps://guest:guest@127.0.0.1:{broker.tls_port}/{broker.vhost()}"
    async with bus_daemon(tmp_path / "d", Address(url)) as daemon:
        await until(
            lambda: "WINDLASS_AMQP_CA" in daemon.links.intake.state.message, "it is explained"
        )


def publishers_file(folder: Path, public: Path) -> Path:
    file = folder / "publishers.yaml"
    secret = folder / "secret"
    secret.write_text(SECRET)
    file.write_text(
        f"""publishers:
  - source: /team-a
    namespaces: [team-a, "team-a-*"]
    algorithm: HS256
    key: file:{secret}
  - source: /release
    namespaces: ["*"]
    algorithm: EdDSA
    key: file:{public}
"""
    )
    return file


def key_pair(folder: Path) -> tuple[Path, Path]:
    key = ed25519.Ed25519PrivateKey.generate()
    private, public = folder / "private.pem", folder / "public.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


async def test_unsigned_and_overreaching_messages_are_refused_when_publishers_are_named(
    broker: Broker, tmp_path: Path
) -> None:
    """A shared secret or a key pair for each publisher, and the namespaces that it may write."""
    private, public = key_pair(tmp_path)
    trust = Publishers.read(publishers_file(tmp_path, public))
    a = Signer("/team-a", "HS256", f"file:{tmp_path / 'secret'}")
    release = Signer("/release", "EdDSA", f"file:{private}")
    forged = tmp_path / "forged"
    forged.write_text("another-secret-of-at-least-32-bytes!")
    cases: tuple[tuple[str, Signer | None, str, Reason | None], ...] = (
        ("/team-a", a, "team-a", None),
        ("/team-a", a, "team-a-lab", None),
        ("/release", release, "anywhere", None),
        ("/team-a", a, "team-b", Reason.FORBIDDEN),
        ("/team-a", None, "team-a", Reason.SOURCE_UNVERIFIED),
        ("/team-a", Signer("/team-a", "HS256", f"file:{forged}"), "team-a",
         Reason.SOURCE_UNVERIFIED),
        ("/release", Signer("/team-a", "HS256", f"file:{tmp_path / 'secret'}"), "x",
         Reason.SOURCE_UNVERIFIED),
        ("/stranger", a, "team-a", Reason.SOURCE_UNVERIFIED),
    )  # fmt: skip
    address = Address(broker.url(broker.vhost()))
    async with bus_daemon(tmp_path / "d", address, trust=trust) as daemon:
        await daemon.until_up()
        for number, (source, signer, namespace, reason) in enumerate(cases):
            async with connected(address, source, signer) as publisher:
                id_ = await publisher.publish(job(f"train-{number}", namespace))
                answer = await publisher.answer(id_, BOUND)
            assert answer.reason == reason, (number, answer)
            assert answer.ok == (reason is None)
            found = await daemon.get(f"Job/{namespace}/train-{number}")
            assert (found is not None) == (reason is None)
        events = [event for _, event in await daemon.store.events(0, 1000)]
        told = {event.data.reason for event in events if event.data.condition == "Refused"}
        assert told == {Reason.FORBIDDEN, Reason.SOURCE_UNVERIFIED}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("publishers: [{source: /x}]", "namespaces"),
        ("publishers: [{source: /x, namespaces: [a], algorithm: none, key: env:K}]", "algorithm"),
        ("publishers: [{source: /x, namespaces: [a], algorithm: HS256, key: hunter2}]", "key"),
        ("publishers: [", "cannot be read"),
    ],
)
def test_a_publishers_file_with_a_fault_stops_the_start(
    tmp_path: Path, text: str, why: str
) -> None:
    """Silently trusting nobody, or everybody, would be worse; no secret is repeated."""
    file = tmp_path / "publishers.yaml"
    file.write_text(text)
    with pytest.raises(PublishersError, match=why) as caught:
        Publishers.read(file)
    assert "hunter2" not in str(caught.value)


def test_a_secret_that_is_too_short_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could be guessed."""
    monkeypatch.setenv("SHORT", "secret")
    with pytest.raises(PublishersError, match="too short"):
        Signer("/x", "HS256", "env:SHORT").sign(b"body")
