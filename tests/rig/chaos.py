"""A world that is perturbed: foreign hands in the backend, passes that are interrupted.

The backend keeps its own account of what was done against the rules, so that no oracle has to trust
the kernel's books.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from rig.interrupt import Interrupted
from windlass.outcome import Result
from windlass.store.base import LeaseLostError, Snapshot, StoreError
from windlass.store.sqlite import SqliteStore
from windlass_adapters.base import (
    Capabilities,
    Desired,
    External,
    Observation,
    Owner,
    State,
    Wanted,
)
from windlass_adapters.testing import Held, MemoryAdapter, MemoryBackend
from windlass_adapters.testing.stepping import Killed
from windlass_adapters.testing.world import World
from windlass_schemas import Key

START = datetime(2030, 1, 1, tzinfo=UTC)
SOAK = timedelta(seconds=20)


@dataclass
class ChaosBackend(MemoryBackend):
    """A backend that notes what nobody may ask of it, and who did what."""

    unanswered: set[tuple[str, str]] = field(default_factory=set)
    """Role and name of whom the last question about has failed."""
    offences: list[str] = field(default_factory=list)
    done: list[tuple[str, str, str]] = field(default_factory=list)
    """Effect, owner's uid and digest, in their order."""

    def create(self, owner: Owner, wanted: Wanted) -> Held:
        before = self.mutations()
        held = super().create(owner, wanted)
        if self.mutations() != before:
            self.done.append(("create", owner.uid, wanted.digest))
        return held

    def update(self, owner: Owner, held: Held, wanted: Wanted) -> Held:
        self._note_foreign(held, owner, "update")
        self.done.append(("update", owner.uid, wanted.digest))
        return super().update(owner, held, wanted)

    def delete(self, owner: Owner, held: Held) -> None:
        self._note_foreign(held, owner, "delete")
        if held.external[:2] in self.unanswered:
            self.offences.append(f"delete of {held.external}, of which nothing was known")
        self.done.append(("delete", owner.uid, held.digest))
        super().delete(owner, held)

    def _note_foreign(self, held: Held, owner: Owner, operation: str) -> None:
        seen = [h for h in self.view().values() if h.external == held.external]
        if held.owner_uid != owner.uid and any(h.owner_uid != owner.uid for h in seen):
            self.offences.append(f"{operation} of {held.external}, which is another's")


class ChaosAdapter(MemoryAdapter):
    """Speaks to it. All targets are this one backend, so names say the target too."""

    chaos: ChaosBackend

    async def observe_many(
        self, externals: Sequence[tuple[Owner, External]]
    ) -> Mapping[External, Observation]:
        names = {e[:2] for _, e in externals}
        self.chaos.unanswered |= names
        answers = await super().observe_many(externals)
        self.chaos.unanswered -= names
        return answers

    def normalise(self, desired: Desired) -> tuple[Wanted, ...]:
        target = self._context.target.rpartition("/")[2]
        return tuple(replace(w, name=f"{w.name}-{target}") for w in super().normalise(desired))


def adapter_for(backend: ChaosBackend) -> type[ChaosAdapter]:
    """An adapter class that speaks to this backend."""
    facts = Capabilities(
        deterministic_names=backend.personality.deterministic,
        soak=SOAK,
        poll_interval=timedelta(seconds=60),
        resync_interval=timedelta(minutes=10),
    )
    fields = {"backend": backend, "chaos": backend, "facts": facts}
    return type("BoundChaosAdapter", (ChaosAdapter,), fields)


@dataclass
class ChaosWorld(World):
    """The kernel under perturbation, with what a controller does around its passes."""

    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    """The newest of each source: a restart reads them again."""
    last: Key | None = None
    """Whose pass was the last one."""

    @property
    def chaos(self) -> ChaosBackend:
        assert isinstance(self.backend, ChaosBackend)
        return self.backend

    @classmethod
    async def begin(cls, folder: Path, backend: ChaosBackend) -> Self:
        """Open a world on a backend. A power cut is not what is tested: no fsync."""
        world = await cls.make(folder, backend, adapter_for(backend), inline=True)
        if isinstance(world.store, SqliteStore):
            world.store._db.connection.execute("PRAGMA synchronous = OFF")
        return world

    async def reopened(self) -> ChaosWorld:
        """Another daemon on the same state; this one is a zombie from now on."""
        world = await type(self).begin(self.folder, self.chaos)
        world.now, world.checks, world.revision = self.now, self.checks, self.revision
        world.passes, world.snapshots = self.passes, self.snapshots
        for object_ in await world.store.list():
            world.due[object_.key] = world.now
        for snapshot in list(world.snapshots.values()):
            await world.take(snapshot)
        return world

    async def take(self, snapshot: Snapshot) -> None:
        """A source has read its set."""
        self.snapshots[snapshot.source] = snapshot
        applied = await self.store.apply(snapshot, self.now)
        for key in applied.changed:
            self.look([key, *await self.store.dependents(key)])

    async def reconcile(self, key: Key) -> None:
        await self._finish(key, self.reconciler.reconcile(key))

    async def _finish(self, key: Key, pass_: Awaitable[Result]) -> None:
        """A pass, and what the controller does after it; what the store refuses comes again."""
        self.passes += 1
        self.last = key
        self.due.pop(key, None)
        try:
            result = await pass_
        except LeaseLostError:
            result = Result(1.0, label="error")
        except StoreError:
            result = Result(5.0, label="error")
        if result.changed:
            again = [*await self.store.dependents(key), *result.wake]
            self.look(k for k in again if k != key)
        if result.freed in self.snapshots:
            await self.take(self.snapshots[result.freed])
        if result.requeue_after is not None and key not in self.due:
            self.due[key] = self.now + timedelta(seconds=result.requeue_after)
        for check in self.checks:
            await check(self)

    async def interrupted_pass(self, key: Key, at: int, act: Callable[[], Awaitable[None]]) -> bool:
        """A pass in whose middle something happens; after it, if it has no such middle.

        Returns whether it had. Raises Killed when what happens is its end.
        """
        running = Interrupted(self.reconciler.reconcile(key), at, act)
        await self._finish(key, running)
        if not running.reached:
            await act()
        return running.reached

    async def taken_over_pass(self, key: Key, at: int, act: Callable[[], Awaitable[None]]) -> None:
        """A pass in whose middle another daemon takes over; what it then comes to is nobody's."""
        running = Interrupted(self.reconciler.reconcile(key), at, act)
        with suppress(StoreError):
            await running
        if not running.reached:
            await act()


async def die() -> None:
    """The process ends here."""
    raise Killed


def running(backend: MemoryBackend) -> list[Held]:
    """Runs that are going on."""
    return [h for h in backend.all("run") if h.state is State.PROGRESSING]
