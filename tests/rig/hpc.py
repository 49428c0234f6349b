"""A Target on the private cluster, and the little of the kernel that drives it in tests."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pydantic import JsonValue

from rig.slurm import Cluster
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
from windlass_adapters.slurm import SlurmAdapter
from windlass_adapters.slurm.naming import Place, place_of
from windlass_adapters.slurm.params import SlurmParams
from windlass_schemas import Artifact, key_of, parse_resource

PATIENCE = 60.0
"""Seconds after which a state that should come counts as never coming."""
TARGET = "default/hpc"
UID = "0123456789abcdef"

_numbers = itertools.count()


class Hpc:
    """One Target: a folder of its own on the cluster, and one here."""

    def __init__(self, cluster: Cluster, folder: Path, **params: JsonValue) -> None:
        self.cluster = cluster
        self.folder = folder
        self.root = cluster.login.root / f"{folder.name[-20:]}-{next(_numbers)}"
        self.store = ArtifactStore(folder / "artifacts")
        self.install = f"install-{next(_numbers)}"
        self._params = params

    @property
    def params(self) -> dict[str, JsonValue]:
        """``Target.spec.params``."""
        login = self.cluster.login
        return {
            "host": login.host,
            "port": login.port,
            "user": login.user,
            "key": f"file:{login.key}",
            "knownHosts": str(login.known_hosts),
            "sshConfig": None,
            "remoteRoot": str(self.root),
            "soak": "0s",
            "limits": {"poll": "300ms", "idlePoll": "2s"},
            **self._params,
        }

    def adapter(self) -> SlurmAdapter:
        """A new adapter: what a restarted daemon has."""
        context = AdapterContext(self.install, TARGET, self.folder / "state", self.store)
        return SlurmAdapter(context, SlurmParams.model_validate(self.params))

    def job(
        self,
        name: str = "train",
        *,
        kept: Mapping[str, bytes | str] | None = None,
        given: Mapping[str, Artifact] | None = None,
        uid: str = UID,
        **spec: JsonValue,
    ) -> Desired:
        """A Job, by the fields of its spec."""
        return self.of(name, spec, kept=kept, given=given, uid=uid)

    def of(
        self,
        name: str,
        spec: Mapping[str, JsonValue],
        *,
        kept: Mapping[str, bytes | str] | None = None,
        given: Mapping[str, Artifact] | None = None,
        uid: str = UID,
    ) -> Desired:
        """A Job as the kernel hands it to the adapter; ``kept`` are its files, by path.

        ``given`` are artifacts of other objects, by slot.
        """
        document: JsonValue = {
            "apiVersion": "windlass/v1",
            "kind": "Job",
            "metadata": {"name": name},
            "spec": dict(spec),
        }
        resource = parse_resource(document)
        held = {}
        for path, content in (kept or {}).items():
            data = content.encode() if isinstance(content, str) else content
            held[path] = self.store.put(data, Path(path).name)
        owner = Owner(self.install, uid, key_of(resource))
        return Desired(owner, resource, held, given or {})

    def shell(
        self, text: str, name: str = "train", *, uid: str = UID, **spec: JsonValue
    ) -> Desired:
        """A Job that runs a line of shell."""
        given: dict[str, JsonValue] = {"command": ["sh", "-c", text], **spec}
        return self.of(name, given, uid=uid)

    def place(self, owner: Owner, external: External) -> Place:
        """Where a run lies on the cluster."""
        return place_of(TARGET, owner, external.name)

    def run_folder(self, owner: Owner, external: External) -> Path:
        """A run's folder, as the test finds it."""
        place = self.place(owner, external)
        return self.cluster.here(self.root / "jobs" / place.owner / place.token)

    def orders(self) -> list[dict[str, JsonValue]]:
        """Every run that is there, asked past the adapter."""
        found = []
        for path in self.cluster.here(self.root).glob("jobs/*/[!.]*/order.json"):
            with suppress(FileNotFoundError):
                found.append(json.loads(path.read_text()))
        return found

    def claims(self) -> list[str]:
        """The job that ran, for each run that has ever begun."""
        root = self.cluster.here(self.root)
        return [str(path.readlink()) for path in root.glob("jobs/*/[!.]*/claim*")]


def create_of(adapter: SlurmAdapter, desired: Desired, attempt: int = 1) -> Create:
    """What the kernel sends for an object."""
    (wanted,) = adapter.normalise(desired)
    return Create(replace(wanted, name=f"{wanted.name}-a{attempt}"), attempt)


async def start(adapter: SlurmAdapter, desired: Desired, attempt: int = 1) -> Found:
    """Send an object's create."""
    return await adapter.apply(desired.owner, create_of(adapter, desired, attempt))


async def look(adapter: SlurmAdapter, owner: Owner, external: External) -> Observation:
    """Observe one."""
    return (await adapter.observe_many([(owner, external)]))[external]


async def settled(adapter: SlurmAdapter, owner: Owner, external: External) -> Found:
    """Observe until it is no longer progressing."""
    return await observed(
        adapter, owner, external, lambda f: f.state is not State.PROGRESSING, "it settles"
    )


async def observed(
    adapter: SlurmAdapter,
    owner: Owner,
    external: External,
    condition: Callable[[Found], bool],
    what: str,
) -> Found:
    """Observe until something holds of it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        seen = await look(adapter, owner, external)
        if isinstance(seen, Found) and condition(seen):
            return seen
        assert time.monotonic() < deadline, f"{external}: never came: {what}; last: {seen}"
        await asyncio.sleep(0.05)


async def ran(adapter: SlurmAdapter, desired: Desired, attempt: int = 1) -> Found:
    """Run a Job to its end."""
    found = await start(adapter, desired, attempt)
    return await settled(adapter, desired.owner, found.external)


async def gone(adapter: SlurmAdapter, owner: Owner, external: External) -> None:
    """Ask for removal, as often as the kernel would, until it is absent."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        await adapter.delete(owner, external)
        if isinstance(await look(adapter, owner, external), Absent):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{external} is still there")


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a fact of the outside world, with a bound."""
    deadline = time.monotonic() + PATIENCE
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, f"never came: {what}"
        await asyncio.sleep(0.05)


def outputs_of(hpc: Hpc, found: Found) -> dict[str, bytes]:
    """The content of a run's outputs."""
    return {name: hpc.store.read(artifact.digest) for name, artifact in found.outputs.items()}


def states(rows: Sequence[Sequence[str]]) -> list[str]:
    """The last column of what squeue printed."""
    return [row[-1] for row in rows]
