"""A daemon's kernel on a real broker, in this process: a memory backend behind, a test in front."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aio_pika
from aio_pika.abc import AbstractIncomingMessage, AbstractQueue

from windlass.bus.address import Address
from windlass.bus.events import AmqpBus
from windlass.bus.intake import SpecIntake
from windlass.bus.snapshots import Snapshots
from windlass.bus.wiring import Links
from windlass.controller import Controller
from windlass.metrics import Metrics
from windlass.reconciler import Reconciler
from windlass.registry import Registry
from windlass.sources.base import Source
from windlass.sources.messages import MessageReader, Trust
from windlass.store.base import Object
from windlass.store.sqlite import SqliteStore
from windlass.targets import Targets
from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.base import Adapter
from windlass_adapters.testing import MemoryAdapter, MemoryBackend
from windlass_schemas import CloudEvent, Key

PATIENCE = 60.0
"""Seconds that a test waits for a state before it fails."""


@dataclass
class BusDaemon:
    """A controller at work between a broker and a memory backend."""

    controller: Controller
    store: SqliteStore
    backend: MemoryBackend
    metrics: Metrics
    links: Links
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def until_up(self) -> None:
        """Wait until all links are at work."""
        await until(lambda: all(link.state.up for link in self.links.all), "all links are up")

    async def until_down(self) -> None:
        """Wait until no link is at work."""
        await until(lambda: not any(link.state.up for link in self.links.all), "links are down")

    async def get(self, key: str) -> Object | None:
        """An object, if it is there."""
        return await self.store.get(Key.parse(key))

    async def until_object(self, key: str, holds: Callable[[Object], bool]) -> Object:
        """Wait until an object is so."""

        async def so() -> bool:
            found = await self.get(key)
            return found is not None and holds(found)

        await until_true(so, f"{key} is as it should be")
        found = await self.get(key)
        assert found is not None
        return found

    async def until_published(self) -> None:
        """Wait until the outbox is empty."""

        async def empty() -> bool:
            return await self.store.backlog() == 0

        await until_true(empty, "the outbox is empty")


@asynccontextmanager
async def bus_daemon(
    folder: Path,
    url: str | Address,
    *,
    sources: tuple[Source, ...] = (),
    trust: Trust | None = None,
    adapter: type[Adapter] | None = None,
) -> AsyncIterator[BusDaemon]:
    """A daemon that takes specs from the broker and tells it its events."""
    folder.mkdir(exist_ok=True)
    backend, metrics = MemoryBackend(), Metrics()
    store = await SqliteStore.open(folder / "windlass.db")
    artifacts = ArtifactStore(folder / "artifacts")
    registry = Registry({"local": adapter or MemoryAdapter.for_backend(backend)})
    calls = metrics.reconcile.backend_calls
    targets = Targets(store, registry, artifacts, folder, {}, calls)
    bus = AmqpBus(metrics.bus)
    reconciler = Reconciler(store, targets, metrics.reconcile)
    controller = Controller(reconciler, targets, sources, bus, metrics)
    reader = MessageReader(artifacts.put_stream, trust=trust)
    intake = SpecIntake(reader, controller.hear, store.install, metrics.bus)
    snapshots = Snapshots(store, metrics.bus)
    address = Address(url) if isinstance(url, str) else url
    links = Links(address, intake, bus, snapshots, metrics.bus)
    controller.listen(store, links.intake.run)
    made = BusDaemon(controller, store, backend, metrics, links)
    try:
        async with asyncio.TaskGroup() as group:
            outward = group.create_task(links.run_outward())
            group.create_task(controller.run(made.stop, 4, 5.0))
            try:
                yield made
            finally:
                made.stop.set()
                outward.cancel()
    finally:
        await targets.close()
        await store.close()


class Subscriber:
    """A plain consumer of status events: what anybody could write with the library."""

    def __init__(self, queue: AbstractQueue) -> None:
        self.queue = queue
        self.events: list[CloudEvent] = []
        self.keys: list[str] = []

    async def take(self, message: AbstractIncomingMessage) -> None:
        async with message.process():
            self.events.append(CloudEvent.model_validate_json(message.body))
            self.keys.append(message.routing_key or "")

    def of(self, key: str) -> list[CloudEvent]:
        """The events of one object in the order of their arrival, each once."""
        subject = str(Key.parse(key))
        return list({e.id: e for e in self.events if e.subject == subject}.values())


@asynccontextmanager
async def subscriber(url: str, binding: str = "#", queue: str = "") -> AsyncIterator[Subscriber]:
    """Subscribed to the events while inside; a named queue is durable and outlives it."""
    connection = await aio_pika.connect(url, timeout=PATIENCE)
    async with connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange("windlass.events", "topic", durable=True)
        if queue:
            declared = await channel.declare_queue(queue, durable=True)
        else:
            declared = await channel.declare_queue(exclusive=True)
        await declared.bind(exchange, binding)
        made = Subscriber(declared)
        await declared.consume(made.take)
        yield made


async def until(holds: Callable[[], object], what: str, bound: float = PATIENCE) -> None:
    """Look again until it holds; fail with a sentence after ``bound`` seconds."""

    async def look() -> bool:
        return bool(holds())

    await until_true(look, what, bound)


async def until_true(
    holds: Callable[[], Awaitable[bool]], what: str, bound: float = PATIENCE
) -> None:
    """The same for what must be awaited."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + bound
    while not await holds():
        assert loop.time() < deadline, f"not within {bound:g} s: {what}"
        await asyncio.sleep(0.02)
