"""The composition root: constructors, signals, the order of starting and stopping; no more.

Start: lock, store, targets, sources, port, then the tasks. Stop: sources, queue, a bounded grace,
API, adapters, store, lock. What the daemon has started on its targets goes on without it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from windlass import log
from windlass.api.listening import PortUnavailableError, answer, bind
from windlass.api.runtime import Check, Runtime
from windlass.bus.base import Bus
from windlass.bus.local import LocalBus
from windlass.checks import adapter_check
from windlass.controller import Controller
from windlass.metrics import Metrics
from windlass.orphans import Orphans
from windlass.reading import Reading
from windlass.reconciler import Reconciler
from windlass.registry import Registry
from windlass.settings import Settings
from windlass.sources.base import Source, SourceUnavailableError
from windlass.sources.messages import MessageReader, Trust
from windlass.sources.opening import open_source
from windlass.sources.readcache import ReadCache
from windlass.store.base import LeaseLostError, Object, Store, StoreError
from windlass.store.inbox import Inbox
from windlass.store.lock import FolderLock
from windlass.store.opening import open_store
from windlass.targets import Targets
from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.base import Adapter
from windlass_schemas import Key

if TYPE_CHECKING:
    from windlass.bus.wiring import Links

LOCK = "windlass.lock"
GARBAGE = (50_000, 20, 20)
"""Thresholds of the garbage collector."""
TURN = 0.0005
"""Seconds after which a thread lets another one go on. With Python's own 5 ms, what waits for a
file or the database in a thread waits behind passes, a statement at a time."""
READ = "read.db"
"""In the state folder: what was read of the specs; may be removed at any time."""
ENDPOINT = "daemon.json"
"""In the state folder: where the daemon that runs on it answers."""

_log = structlog.get_logger("windlass")


class StartError(Exception):
    """The daemon cannot start. The message says why and what to do."""


class Daemon(Runtime):
    """A daemon put together: what the API may ask of it."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        targets: Targets,
        registry: Registry,
        sources: Sequence[Source],
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._store = store
        self._metrics = metrics
        self._targets = targets
        self._registry = registry
        self._sources = sources
        self._bus: Bus = LocalBus() if settings.amqp is None else _amqp_bus(metrics)
        self.links: Links | None = None
        self._orphans = Orphans(store, targets, metrics)
        reconciler = Reconciler(store, targets, self._metrics.reconcile, history=settings.history)
        self.controller = Controller(reconciler, targets, sources, self._bus, self._metrics)

    @property
    def follows(self) -> str:
        """What it follows, for people."""
        told = [source.title for source in self._sources]
        if self._settings.amqp is not None:
            told.append(f"messages of {self._settings.amqp}")
        return " and ".join(told)

    def connect(self, reader: MessageReader, inbox: Inbox) -> None:
        """Take part in what goes over the broker, if there is one."""
        if self._settings.amqp is None:
            return
        from windlass.bus.wiring import connect

        metrics = self._metrics.bus
        self.links = connect(
            self._settings.amqp, self._bus, reader, self.controller.hear, self._store, metrics
        )
        self.controller.listen(inbox, self.links.intake.run)

    @property
    def store(self) -> Store:
        return self._store

    @property
    def settings(self) -> Settings:
        return self._settings

    @property
    def metrics(self) -> Metrics:
        for target, calls in self._targets.api_calls():
            self._metrics.count_api_calls(target, calls)
        self._metrics.adapters.take(self._targets.numbers())
        return self._metrics

    @property
    def orphans(self) -> Orphans:
        return self._orphans

    def enqueue(self, keys: Iterable[Key]) -> None:
        self.controller.enqueue(keys)

    async def transferred(self, to: str) -> None:
        await self.controller.transferred(to)

    def pending(self, key: Key) -> bool:
        return self.controller.pending(key)

    async def adapter(self, object: Object) -> Adapter:
        return (await self._targets.of(object, Reading(self._store))).adapter

    def _source_check(self, source: Source) -> Check:
        error = self.controller.troubles.sources.get(source.id, "")
        following = source.id in self.controller.following.now
        told = "followed" if following else "stands by: another daemon follows it"
        return Check(f"source {source.id}", not error, error or told)

    def health(self) -> Sequence[Check]:
        checks = [self._source_check(source) for source in self._sources]
        error = self.controller.troubles.store
        checks.append(Check("store", not error, error or "takes writes"))
        checks += [
            Check(f"adapter {name}", False, f"cannot be loaded: {why}")
            for name, why in self._registry.broken.items()
        ]
        if self.links is not None:
            checks += [
                Check(f"broker {link.name}", link.state.up, link.state.message)
                for link in self.links.all
            ]
        queue = self.controller.queue
        checks.append(Check("queue", True, f"{len(queue)} due, {queue.active} worked on"))
        return checks

    def notes(self) -> Sequence[str]:
        return [note for source in self._sources for note in source.notes()]

    def subscribe(self) -> AbstractAsyncContextManager[AsyncIterator[int]]:
        return self._bus.subscribe()


def _amqp_bus(metrics: Metrics) -> Bus:
    """The client library is loaded by those who have a broker."""
    from windlass.bus.events import AmqpBus

    return AmqpBus(metrics.bus)


def _trust(settings: Settings) -> Trust | None:
    """Who may publish specs. Raises StartError."""
    if settings.amqp_publishers is None:
        return None
    from windlass.bus.signing import Publishers, PublishersError

    try:
        return Publishers.read(settings.amqp_publishers)
    except PublishersError as error:
        raise StartError(str(error)) from error


def run(path: Path | None, worktree: bool, settings: Settings) -> int:
    """Run a daemon until it is told to stop; its exit code. Raises StartError."""
    # What is read stays: looking for garbage in it every 700 allocations costs a third of a start.
    gc.set_threshold(*GARBAGE)
    sys.setswitchinterval(TURN)
    log.configure(sys.stderr, json=not sys.stderr.isatty())
    try:
        asyncio.run(live(path, worktree, settings))
    except (StoreError, SourceUnavailableError, PortUnavailableError) as error:
        raise StartError(str(error)) from error
    except BaseExceptionGroup as group:
        lost = group.subgroup(LeaseLostError)
        if lost is None:
            raise
        raise StartError(str(_first(lost))) from group
    return 0


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def live(path: Path | None, worktree: bool, settings: Settings) -> None:
    """Be a daemon until a signal asks to stop."""
    settings = settings.model_copy(update={"state": settings.state.absolute()})
    async with AsyncExitStack() as stack:
        stack.enter_context(FolderLock(settings.state / LOCK))
        listener = stack.enter_context(bind(settings.api_host, settings.api_port))
        daemon = await stack.enter_async_context(_compose(path, worktree, settings))
        stack.enter_context(_endpoint(settings, listener))
        await _serve(daemon, settings, listener)
    _log.info("stopped; what it has started goes on")


@asynccontextmanager
async def _compose(path: Path | None, worktree: bool, settings: Settings) -> AsyncIterator[Daemon]:
    """Put a daemon together; on the way out close adapters, then the store."""
    registry, metrics = Registry(), Metrics()
    artifacts = ArtifactStore(settings.artifacts or settings.state / "artifacts")
    trust = _trust(settings)
    keep, check = artifacts.put_stream, adapter_check(registry)
    sources: list[Source] = []
    if path is not None:
        cache = ReadCache(settings.state / READ, registry.code())
        sources.append(
            await open_source(path, worktree=worktree, keep=keep, check=check, cache=cache)
        )
    store = await open_store(settings, metrics.sharing.database_errors.inc)
    targets = Targets(
        store,
        registry,
        artifacts,
        settings.state / "targets",
        {"port": settings.serving_port},
        metrics.reconcile.backend_calls,
    )
    try:
        daemon = Daemon(settings, store, targets, registry, sources, metrics)
        daemon.connect(MessageReader(keep, check, trust), store)
        yield daemon
    finally:
        await targets.close()
        await store.close()


async def _serve(daemon: Daemon, settings: Settings, listener: socket.socket) -> None:
    """Controller and API under one roof, until a signal."""
    stop = asyncio.Event()
    api_stop = asyncio.Event()
    with _signals(stop):
        async with asyncio.TaskGroup() as group:
            news = daemon.controller.news_first()
            group.create_task(answer(daemon, listener, news, api_stop))
            group.create_task(daemon.orphans.run(api_stop))
            links = group.create_task(daemon.links.run_outward()) if daemon.links else None
            try:
                _log.info(
                    "windlass is up",
                    follows=daemon.follows,
                    api=f"http://{settings.api_host}:{listener.getsockname()[1]}",
                    state=str(settings.state),
                )
                await daemon.controller.run(stop, settings.workers, settings.stop_grace)
            finally:
                api_stop.set()
                if links is not None:
                    links.cancel()


@contextmanager
def _signals(stop: asyncio.Event) -> Iterator[None]:
    """The first signal asks to stop in order, the second one ends it at once."""
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(130)
        _log.info("stopping; once more to stop at once")
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@contextmanager
def _endpoint(settings: Settings, listener: socket.socket) -> Iterator[None]:
    """Write down where the daemon answers, for those who find only the state folder."""
    file = settings.state / ENDPOINT
    host, port = listener.getsockname()[:2]
    file.write_text(json.dumps({"pid": os.getpid(), "api": f"http://{host}:{port}"}))
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            file.unlink()
