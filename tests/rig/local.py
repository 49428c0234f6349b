"""A local target in a folder of its own, and the little of the kernel that drives it in tests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import JsonValue

from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.base import (
    Absent,
    AdapterContext,
    Create,
    Desired,
    External,
    Found,
    Observation,
    Owner,
    State,
)
from windlass_adapters.local import LocalAdapter
from windlass_adapters.local.params import LocalParams
from windlass_adapters.local.processes import is_alive
from windlass_adapters.local.records import read_process
from windlass_adapters.local.servers import serving_processes
from windlass_schemas import Artifact, key_of, parse_resource

PATIENCE = 20.0
"""Seconds after which a state that should come counts as never coming."""


@dataclass
class LocalTarget:
    """One target's state folder and artifact store."""

    root: Path
    params: dict[str, JsonValue] = field(default_factory=dict)

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.root / "artifacts")

    @property
    def state(self) -> Path:
        return self.root / "state"

    def adapter(self) -> LocalAdapter:
        """A new adapter on the same state: what a restarted daemon has."""
        context = AdapterContext("install-1", "default/local", self.state, self.store)
        return LocalAdapter(context, LocalParams.model_validate(self.params))

    def desired(
        self,
        kind: str,
        name: str,
        spec: Mapping[str, JsonValue],
        *,
        files: Mapping[str, bytes | str] | None = None,
        inputs: Mapping[str, Artifact] | None = None,
        uid: str = "0123456789abcdef",
    ) -> Desired:
        """An object as the kernel hands it to the adapter; its files are kept first."""
        metadata: dict[str, JsonValue] = {"name": name}
        resource = parse_resource(
            {"apiVersion": "windlass/v1", "kind": kind, "metadata": metadata, "spec": dict(spec)}
        )
        kept = {}
        for path, content in (files or {}).items():
            data = content.encode() if isinstance(content, str) else content
            kept[path] = self.store.put(data, Path(path).name)
        owner = Owner("install-1", uid, key_of(resource))
        return Desired(owner, resource, kept, inputs or {})

    def script(
        self, text: str, *, name: str = "train", uid: str = "0123456789abcdef", **spec: JsonValue
    ) -> Desired:
        """A Job that runs a Python script."""
        given: dict[str, JsonValue] = {"entrypoint": "main.py", **spec}
        return self.desired("Job", name, given, files={"main.py": text}, uid=uid)


def create_of(adapter: LocalAdapter, desired: Desired, attempt: int = 1) -> Create:
    """What the kernel sends for an object."""
    (wanted,) = adapter.normalise(desired)
    if wanted.completes:
        wanted = replace(wanted, name=f"{wanted.name}-a{attempt}")
    return Create(wanted, attempt)


async def start(adapter: LocalAdapter, desired: Desired, attempt: int = 1) -> Found:
    """Send an object's create."""
    return await adapter.apply(desired.owner, create_of(adapter, desired, attempt))


async def look(adapter: LocalAdapter, owner: Owner, external: External) -> Observation:
    """Observe one."""
    return (await adapter.observe_many([(owner, external)]))[external]


async def settled(adapter: LocalAdapter, owner: Owner, external: External) -> Found:
    """Observe until it is no longer progressing."""
    deadline = time.monotonic() + PATIENCE
    while True:
        seen = await look(adapter, owner, external)
        if isinstance(seen, Found) and seen.state is not State.PROGRESSING:
            return seen
        assert time.monotonic() < deadline, f"{external} did not settle: {seen}"
        await asyncio.sleep(0.02)


async def gone(adapter: LocalAdapter, owner: Owner, external: External) -> None:
    """Ask for removal, as often as the kernel would, until it is absent."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        await adapter.delete(owner, external)
        if isinstance(await look(adapter, owner, external), Absent):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{external} is still there")


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a fact of the outside world, with a bound."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"never came: {what}"
        await asyncio.sleep(0.02)


def lives(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


async def end_serving(target: LocalTarget) -> None:
    """Stop all serving processes of a target that live: with a supervisor its workers too."""
    folder = target.state / "serving"
    for name in ("starting.json", "serving.json"):
        process = read_process(folder / name)
        if process is not None and is_alive(process):
            await _kill(process.pid)
    for left in serving_processes(folder):
        await _kill(left.pid)


async def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    await until(lambda: not lives(pid), "the end of a serving process")
