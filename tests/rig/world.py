"""A whole kernel without a daemon: real store and reconciler, a backend in memory, our own clock.

Tests declare documents, let passes run until nothing is left to do, and look at the world.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from windlass.metrics import Metrics
from windlass.outcome import Result
from windlass.reconciler import Reconciler
from windlass.registry import Registry
from windlass.store.base import Applied, Document, Fault, Object, Snapshot
from windlass.store.sqlite import SqliteStore
from windlass.targets import Targets
from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.testing import MemoryAdapter, MemoryBackend
from windlass_schemas import (
    Artifact,
    CloudEvent,
    Condition,
    Key,
    digest_of_resource,
    parse_resource,
)

SOURCE = "folder:/specs"


def document(kind: str, name: str, spec: Mapping[str, object], **policy: object) -> Document:
    """A valid document of ours."""
    text: dict[str, object] = {
        "apiVersion": "windlass/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": spec,
    }
    if policy:
        text["policy"] = policy
    resource = parse_resource(text)
    files = {
        path: Artifact(digest="sha256:" + "0" * 64, size=1, name=path)
        for _, path in resource.spec.named_files()
    }
    digest = digest_of_resource(resource, {path: a.digest for path, a in files.items()})
    return Document(resource, files, digest, f"{name}.yaml", 1)


def job(
    name: str = "train", *, params: Mapping[str, object] | None = None, **policy: object
) -> Document:
    """A Job with one output, ``model``."""
    spec: dict[str, object] = {"command": ["train"], "outputs": {"model": "model.onnx"}}
    if params is not None:
        spec["params"] = params
    return document("Job", name, spec, **policy)


def model(name: str = "wine", source: str = "train", **policy: object) -> Document:
    """A Model from a Job's output."""
    spec = {"source": {"job": {"name": source, "output": "model"}}}
    return document("Model", name, spec, **policy)


def deployment(name: str = "wine", of: str = "wine", **policy: object) -> Document:
    """A Deployment of a Model."""
    return document("Deployment", name, {"model": of}, **policy)


@dataclass
class World:
    """The kernel, its backend and its time."""

    folder: Path
    store: SqliteStore
    reconciler: Reconciler
    targets: Targets
    backend: MemoryBackend
    now: datetime = datetime(2030, 1, 1, tzinfo=UTC)
    revision: int = 0
    due: dict[Key, datetime] = field(default_factory=dict)
    passes: int = 0

    @classmethod
    async def make(
        cls,
        folder: Path,
        backend: MemoryBackend | None = None,
        adapter: type[MemoryAdapter] | None = None,
    ) -> Self:
        """Open (or reopen) a world in a folder."""
        backend = backend or MemoryBackend()
        store = await SqliteStore.open(folder / "windlass.db")
        registry = Registry({"local": adapter or MemoryAdapter.for_backend(backend)})
        artifacts = ArtifactStore(folder / "artifacts")
        targets = Targets(
            store, registry, artifacts, folder / "targets", {}, Metrics().reconcile.backend_calls
        )
        world = cls(folder, store, Reconciler.__new__(Reconciler), targets, backend)
        world.reconciler = Reconciler(
            store, targets, Metrics().reconcile, lambda: world.now, lambda low, high: high
        )
        for object_ in await store.list():
            world.due[object_.key] = world.now
        return world

    async def declare(
        self, *documents: Document, faults: Iterable[Fault] = (), source: str = SOURCE
    ) -> Applied:
        """Take over a source's whole set as the next revision."""
        self.revision += 1
        snapshot = Snapshot(source, f"r{self.revision}", "ann", documents, tuple(faults))
        applied = await self.store.apply(snapshot, self.now)
        self.look(applied.changed)
        return applied

    def look(self, keys: Iterable[Key]) -> None:
        """Make keys due now."""
        for key in keys:
            self.due[key] = self.now

    async def reconcile(self, key: Key) -> Result:
        """One pass, with what the controller does after it."""
        self.passes += 1
        result = await self.reconciler.reconcile(key)
        self.due.pop(key, None)
        if result.changed:
            self.look(await self.store.dependents(key))
            self.look(result.wake)
        if result.requeue_after is not None:
            self.due[key] = self.now + timedelta(seconds=result.requeue_after)
        return result

    async def settle(self, limit: int = 500) -> None:
        """Run passes until none is due at this moment."""
        for _ in range(limit):
            due = sorted(key for key, at in self.due.items() if at <= self.now)
            if not due:
                return
            await self.reconcile(due[0])
        raise AssertionError(f"not settled after {limit} passes: {self.due}")

    async def after(self, **duration: float) -> None:
        """Let time pass, with every pass that falls due on the way."""
        end = self.now + timedelta(**duration)
        await self.settle()
        while self.due and min(self.due.values()) <= end:
            self.now = max(self.now, min(self.due.values()))
            await self.settle()
        self.now = end

    async def get(self, text: str) -> Object:
        """An object that must be there."""
        found = await self.store.get(Key.parse(text))
        assert found is not None, f"{text} is not in the store"
        return found

    async def ready(self, text: str) -> Condition:
        """An object's condition Ready."""
        return await self.condition(text, "Ready")

    async def condition(self, text: str, type_: str) -> Condition:
        """A condition that must be there."""
        found = (await self.get(text)).status.condition(type_)
        assert found is not None, f"{text} has no condition {type_}"
        return found

    async def events(self, text: str = "") -> list[CloudEvent]:
        """All events so far, of one object or of all."""
        found = [event for _, event in await self.store.events(0, 100_000)]
        subject = str(Key.parse(text)) if text else ""
        return [e for e in found if not subject or e.subject == subject]

    async def kill(self) -> World:
        """The daemon dies and another one starts on the same state and backend."""
        await self.store.close()
        world = await World.make(self.folder, self.backend, None)
        world.now, world.revision = self.now, self.revision
        world.look(world.due)
        return world


def effects(world: World) -> Mapping[str, int]:
    """How often each effect happened, whatever the name."""
    found: dict[str, int] = {}
    for (effect, _), count in world.backend.effects.items():
        found[effect] = found.get(effect, 0) + count
    return found
