"""A world that is perturbed: a backend with lag and foreign hands, passes that are interrupted.

The backend keeps its own account of what was done against the rules, so that no oracle has to trust
the kernel's books.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from rig.interrupt import Interrupted, Killed
from rig.world import World
from windlass.outcome import Result
from windlass.store.base import LeaseLostError, Object, RecordState, Snapshot, StoreError
from windlass_adapters.base import (
    Absent,
    Capabilities,
    Change,
    Create,
    Desired,
    External,
    Found,
    Observation,
    Owner,
    State,
    TerminalError,
    Update,
    Wanted,
)
from windlass_adapters.testing import Held, MemoryAdapter, MemoryBackend
from windlass_schemas import Key

START = datetime(2030, 1, 1, tzinfo=UTC)
FACTS = Capabilities(
    soak=timedelta(seconds=20),
    poll_interval=timedelta(seconds=60),
    resync_interval=timedelta(minutes=10),
)

Name = tuple[str, str]


@dataclass
class ChaosBackend(MemoryBackend):
    """A backend whose lists lag, and that notes what nobody may ask of it."""

    now: datetime = START
    lag: timedelta = timedelta(0)
    """How old the answers to questions are."""
    past: list[tuple[datetime, Mapping[Name, Held]]] = field(default_factory=list)
    unanswered: set[Name] = field(default_factory=set)
    """Whom the last question about has failed."""
    offences: list[str] = field(default_factory=list)
    mutated: list[tuple[str, str, str]] = field(default_factory=list)
    """Effect, owner's uid and digest, in their order."""

    def remember(self) -> None:
        """Keep how things are now, for those who will be answered late."""
        self.past.append((self.now, {name: replace(held) for name, held in self.held.items()}))
        del self.past[:-200]

    def view(self) -> Mapping[Name, Held]:
        """What a question is answered from."""
        if not self.lag:
            return self.held
        old = [held for at, held in self.past if at <= self.now - self.lag]
        return old[-1] if old else {}

    def check_owner(self, owner: Owner, name: Name, operation: str) -> None:
        """Refuse what would touch another owner's resource, and note that it was asked."""
        held = self.held.get(name)
        if held is not None and held.owner_uid != owner.uid:
            if held in self.view().values():  # it could be known
                self.offences.append(f"{operation} of {name}, which is another owner's")
            raise TerminalError(f"{name[1]} belongs to {held.owner_uid}")


class ChaosAdapter(MemoryAdapter):
    """Speaks to it, and suspends before and after each effect, so that both can be cut off."""

    facts = FACTS
    chaos: ChaosBackend

    async def observe_many(
        self, externals: Sequence[tuple[Owner, External]]
    ) -> Mapping[External, Observation]:
        names = {(e.role, e.name) for _, e in externals}
        self.chaos.unanswered |= names
        await asyncio.sleep(0)
        self.chaos.call("observe_many")
        view = self.chaos.view()
        await asyncio.sleep(0)
        self.chaos.unanswered -= names
        return {e: _seen_or_absent(view.get((e.role, e.name))) for _, e in externals}

    async def find(self, owner: Owner) -> Sequence[Found]:
        await asyncio.sleep(0)
        self.chaos.call("find")
        return [_seen(h) for h in self.chaos.view().values() if h.owner_uid == owner.uid]

    async def apply(self, owner: Owner, action: Create | Update) -> Found:
        await asyncio.sleep(0)
        name = (action.wanted.role, action.wanted.name)
        operation = "create" if isinstance(action, Create) else "update"
        self.chaos.check_owner(owner, name, operation)
        before = self.chaos.effects.total()
        try:
            return await super().apply(owner, action)
        finally:
            if self.chaos.effects.total() != before:
                self.chaos.mutated.append((operation, owner.uid, action.wanted.digest))
                self.chaos.remember()
            await asyncio.sleep(0)

    async def delete(self, owner: Owner, external: External) -> None:
        await asyncio.sleep(0)
        name = (external.role, external.name)
        if name in self.chaos.unanswered:
            self.chaos.offences.append(f"delete of {name}, of which nothing was known")
        self.chaos.check_owner(owner, name, "delete")
        held = self.chaos.held.get(name)
        try:
            await super().delete(owner, external)
        finally:
            if held is not None and name not in self.chaos.held:
                self.chaos.mutated.append(("delete", owner.uid, held.digest))
                self.chaos.remember()
            await asyncio.sleep(0)

    def normalise(self, desired: Desired) -> tuple[Wanted, ...]:
        """Names say the target too, because all targets are this one backend."""
        target = self._context.target.rpartition("/")[2]
        return tuple(replace(w, name=f"{w.name}-{target}") for w in super().normalise(desired))

    def diff(self, wanted: Wanted, found: Found) -> tuple[Change, ...]:
        held = self.chaos.view().get((wanted.role, wanted.name))
        if held is None:
            return ()
        body = held.body
        return tuple(
            Change(f"/{path}", body.get(path), value)
            for path, value in wanted.body.items()
            if body.get(path) != value
        )


def _seen(held: Held) -> Found:
    settled = held.state is not State.PROGRESSING
    return Found(
        external=held.external,
        owner_uid=held.owner_uid,
        state=held.state,
        digest=held.digest if settled else None,
        pending_digest=None if settled else held.digest,
        message=held.message,
        attempt_counts=held.attempt_counts,
        outputs=held.outputs,
    )


def _seen_or_absent(held: Held | None) -> Observation:
    return Absent() if held is None else _seen(held)


def adapter_for(backend: ChaosBackend) -> type[ChaosAdapter]:
    """An adapter class that speaks to this backend."""
    return type("BoundChaosAdapter", (ChaosAdapter,), {"backend": backend, "chaos": backend})


@dataclass
class ChaosWorld(World):
    """The kernel under perturbation, with what a controller does around its passes."""

    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    """The newest of each source: a restart reads them again."""
    interrupted: bool = False
    """Whether the last pass was."""

    @property
    def chaos(self) -> ChaosBackend:
        assert isinstance(self.backend, ChaosBackend)
        return self.backend

    def set_time(self, now: datetime) -> None:
        self.now = self.chaos.now = now

    async def reopened(self) -> ChaosWorld:
        """Another daemon on the same state; this one is a zombie from now on."""
        world = await type(self).make(self.folder, self.backend, adapter_for(self.chaos))
        world.store._db.connection.execute("PRAGMA synchronous = OFF")
        world.set_time(self.now)
        world.revision, world.passes = self.revision, self.passes
        world.snapshots = self.snapshots
        for object_ in await world.store.list():
            world.due[object_.key] = world.now
        for snapshot in list(world.snapshots.values()):
            await world.take(snapshot)
        return world

    async def take(self, snapshot: Snapshot) -> None:
        """A source has read its set."""
        self.snapshots[snapshot.source] = snapshot
        applied = await self.store.apply(snapshot, self.now)
        self.look(applied.changed)
        for key in applied.changed:
            self.look(await self.store.dependents(key))

    async def reconcile(self, key: Key) -> Result:
        """One pass. What the store refuses is tried again a second later."""
        return await self.pass_(key, self.reconciler.reconcile(key))

    async def pass_(self, key: Key, running: Awaitable[Result]) -> Result:
        self.passes += 1
        self.due.pop(key, None)
        try:
            result = await running
        except LeaseLostError:
            result = Result(1.0, label="error")
        except StoreError:
            result = Result(5.0, label="error")
        again = key in self.due
        if result.changed:
            self.look(await self.store.dependents(key))
            self.look(result.wake)
        if result.freed in self.snapshots:
            await self.take(self.snapshots[result.freed])
        if result.requeue_after is not None and not again:
            self.due[key] = self.now + timedelta(seconds=result.requeue_after)
        return result

    async def interrupted_pass(self, key: Key, at: int, act: Callable[[], Awaitable[None]]) -> None:
        """A pass in whose middle something happens. Raises Killed when that is its end."""
        running = Interrupted(self.reconciler.reconcile(key), at, act)
        await self.pass_(key, running)
        if not running.reached:
            await act()

    async def after(self, **duration: float) -> None:
        end = self.now + timedelta(**duration)
        await self.settle()
        while self.due and min(self.due.values()) <= end:
            self.set_time(max(self.now, min(self.due.values())))
            await self.settle()
        self.set_time(end)

    async def objects(self) -> Sequence[Object]:
        return await self.store.list()


async def die() -> None:
    """The process ends here."""
    raise Killed


def finished(object_: Object) -> set[str]:
    """Digests that have run to a good end, by our books."""
    return {r.wanted.digest for r in object_.externals if r.state is RecordState.SUCCEEDED}


def running(backend: MemoryBackend) -> list[Held]:
    """Runs that are going on."""
    return [
        held
        for (role, _), held in backend.held.items()
        if role == "run" and held.state is State.PROGRESSING
    ]
