"""What must hold of a perturbed world: after every pass, after every step, and in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import JsonValue

from rig.chaos import ChaosBackend, ChaosWorld, running
from rig.declared import SOURCES, Declared, Reference, Variant, document
from windlass.store.base import Object, RecordState
from windlass_adapters.base import External, State
from windlass_adapters.testing.held import Held
from windlass_adapters.testing.oracles import check_quiet
from windlass_adapters.testing.world import World
from windlass_schemas import CloudEvent, Key, Reason, dump_resource, references_of


@dataclass
class Watch:
    """Follows a world, and remembers what it needs to judge the next step."""

    taken: dict[External, str] = field(default_factory=dict)
    """Whose externals somebody else has put another owner's tag on."""
    position: int = 0
    numbers: Counter[str] = field(default_factory=Counter)
    truths: dict[tuple[str, str], str] = field(default_factory=dict)
    paused: dict[str, int] = field(default_factory=dict)
    """Uids of suspended objects, and how many effects they had had by then."""
    meddled_at: datetime | None = None
    """When somebody last changed the backend behind our back."""
    finished: dict[str, set[str]] = field(default_factory=dict)
    seen: int = 0
    orphans: set[str] = field(default_factory=set)
    left: dict[External, tuple[str, int, str, Mapping[str, JsonValue]]] = field(
        default_factory=dict
    )
    """What a foreign hand has changed and nobody may put right: whose, generation, digest, body."""
    enabled: bool = True

    @contextmanager
    def off(self) -> Iterator[None]:
        """While a pass is interrupted, what it says of its own moment is not judged."""
        self.enabled = False
        self.paused.clear()
        try:
            yield
        finally:
            self.enabled = True

    async def after_pass(self, world: World) -> None:
        """Asked after every pass: who says Ready holds what it says."""
        assert isinstance(world, ChaosWorld)
        assert world.last is not None
        object_ = await world.store.get(world.last)
        if object_ is None:
            return
        self._check_run_again(world, object_)
        if self.enabled:
            self._check_truth(world, object_)

    async def check(self, world: ChaosWorld) -> None:
        """Asked after every step."""
        assert not world.chaos.offences, world.chaos.offences
        _check_single(world.chaos)
        await self._check_events(world)
        await self._check_paused(world)
        await self._check_left(world)

    def _check_run_again(self, world: ChaosWorld, object_: Object) -> None:
        """What was known to have run to a good end before this pass was not started in it."""
        done = world.chaos.done[self.seen :]
        begun = {(uid, digest) for effect, uid, digest in done if effect == "create"}
        self.seen = len(world.chaos.done)
        refuses = getattr(object_.resource.spec, "on_change", "") == "refuse"
        anew = self.enabled and refuses and self.finished.get(object_.uid)
        assert not (anew and begun), f"{object_.key} has run and was run anew although it refuses"
        again = {(object_.uid, digest) for digest in self.finished.get(object_.uid, ())} & begun
        assert not again, f"{object_.key} was run again"
        self.finished[object_.uid] = {
            r.wanted.digest for r in object_.externals if r.state is RecordState.SUCCEEDED
        }

    def _check_truth(self, world: ChaosWorld, object_: Object) -> None:
        """Who says Ready for a generation holds just that: by the backend, not by our books."""
        backend, key = world.chaos, object_.key
        ready = object_.status.condition("Ready")
        assert ready is None or ready.reason is not Reason.UNEXPECTED, f"{key}: {ready}"
        if not object_.status.is_true("Ready", object_.generation) or key.kind == "Target":
            return
        if self.meddled_at is not None and world.now - self.meddled_at <= backend.lag:
            return
        spec = _decisive(dump_resource(object_.resource)["spec"])
        held = [*backend.held.values(), *backend.written.values()]
        good = State.SUCCEEDED if key.kind == "Job" else State.LIVE
        mine = [h for h in held if h.owner_uid == object_.uid and h.state is good]
        assert any(_decisive(h.body) == spec for h in mine), (
            f"{key} says Ready for generation {object_.generation}; the backend: {mine}"
        )

    async def _check_events(self, world: ChaosWorld) -> None:
        for position, event in await world.store.events(self.position, 10_000):
            self.position = position
            self._check_event(event)
        for object_ in await world.store.list():
            assert object_.seq == self.numbers[object_.uid], f"{object_.key}: events are missing"
            for condition in object_.status.conditions:
                told = self.truths.get((object_.uid, condition.type), "False")
                assert told == condition.status, f"{object_.key} {condition.type}: {told} was told"

    def _check_event(self, event: CloudEvent) -> None:
        data = event.data
        self.numbers[data.uid] += 1
        assert data.seq == self.numbers[data.uid], f"{event.subject}: a gap before {data.seq}"
        place = (data.uid, data.condition)
        before = self.truths.get(place)
        legal = before is None or before == data.from_status
        assert legal, f"{event.subject} {data.condition}: from {data.from_status}, was {before}"
        assert (data.uid, "Deleted") not in self.truths, f"{event.subject} speaks after its end"
        self.truths[place] = data.to_status
        if data.condition == "Deleted" and data.message == "left behind":
            self.orphans.add(data.uid)

    async def _check_paused(self, world: ChaosWorld) -> None:
        """Nothing was done for what was suspended before the step and is after it."""
        done = Counter(uid for _, uid, _ in world.chaos.done)
        paused = {o.uid: done[o.uid] for o in await world.store.list() if o.suspended}
        for uid, count in paused.items():
            assert self.paused.get(uid, count) == count, "a suspended object was acted on"
        self.paused = paused

    async def leave_alone(self, world: ChaosWorld, held: Held) -> None:
        """A foreign hand has changed this one; by its policy that may have to stay so."""
        self.left.pop(held.external, None)
        owner = next((o for o in await world.store.list() if o.uid == held.owner_uid), None)
        if owner is None or not owner.status.is_true("Ready", owner.generation):
            return
        policy = owner.resource.policy
        if held.state is State.LIVE and (policy.self_heal != "all" or policy.ignore):
            self.left[held.external] = (owner.uid, owner.generation, held.digest, held.body)

    async def _check_left(self, world: ChaosWorld) -> None:
        """What a policy leaves to others stays so, until something else is declared."""
        objects = {o.uid: o for o in await world.store.list()} if self.left else {}
        for external, (uid, generation, digest, body) in list(self.left.items()):
            owner = objects.get(uid)
            held = world.backend.held.get((external.role, external.external_id))
            same = held is not None and (held.owner_uid, held.digest) == (uid, digest)
            same = same and owner is not None and owner.deleting_since is None
            if not same or owner is None or owner.generation != generation:
                del self.left[external]
            else:
                assert held is not None
                assert held.body == body, f"{owner.key} was put right against its policy"

    def give_back(self, backend: ChaosBackend) -> None:
        """The foreign hand takes its tags away again; nothing of it was touched."""
        for external, uid in self.taken.items():
            for held in backend.held.values():
                if held.external == external and held.owner_uid == "somebody":
                    held.owner_uid = uid
        self.taken.clear()
        backend.note()


def _decisive(body: Mapping[str, JsonValue] | JsonValue) -> dict[str, JsonValue]:
    """What of a spec decides what the backend holds."""
    assert isinstance(body, Mapping)
    beside = ("inputs", "files", "timeLimit", "retries", "onChange")
    return {name: value for name, value in body.items() if name not in beside}


def _check_single(backend: ChaosBackend) -> None:
    names = Counter(h.external[:2] for h in backend.held.values() if h.owner_uid != "somebody")
    twice = [name for name, count in names.items() if count > 1]
    assert not twice, f"held more than once: {twice}"
    runs = Counter((h.owner_uid, h.digest) for h in running(backend))
    assert all(n == 1 for n in runs.values()), f"one run goes on twice: {runs}"


async def reference_of(world: ChaosWorld, declared: Declared) -> Reference:
    """What is accepted of what is declared. Which of two claimants owns a key, the store says."""
    accepted: dict[Key, Variant] = {}
    paused: set[Key] = set()
    objects = {o.key: o for o in await world.store.list()}
    kept = _kept(list(objects.values()))
    for key in {key for source in SOURCES for key in declared.sources[source]}:
        claims = declared.claims(key)
        assert key in objects, f"{key} is declared and not in the store"
        found = objects[key]
        if found.source not in claims and key in kept:
            continue
        assert found.source in claims, f"{key} is of {found.source}, which does not declare it"
        accepted[key] = claims[found.source]
        assert found.deleting_since is None, f"{key} is declared and going"
        assert found.digest == document(key, accepted[key]).digest, f"{key} is of an older version"
    undeclared = [found for key, found in objects.items() if key not in accepted]
    for key, found in objects.items():
        if found.suspended or accepted.get(key, Variant()).suspend_hours == 0:
            paused.add(key)
    for found in undeclared:
        assert found.key in kept, f"{found.key} should be gone: {found}"
    return Reference(accepted, frozenset(paused), frozenset(o.key for o in undeclared))


def _kept(objects: Sequence[Object]) -> set[Key]:
    """What may be there undeclared: by its own policy, or because one that goes stands on it."""
    kept = {o.key for o in objects if _is_kept(o)}
    going = [o for o in objects if o.deleting_since is not None]
    for _ in objects:
        held = (r.key for o in going if o.key in kept for r in references_of(o.resource))
        kept |= set(held)
    return kept


def _is_kept(object_: Object) -> bool:
    """Why an object is there that nobody declares."""
    policy = object_.resource.policy
    kept = policy.prune != "auto" or policy.on_delete == "block" or object_.suspended != ""
    kept = kept or (policy.suspend is not None and policy.suspend.until is None)
    return kept or object_.key.kind == "Target"


async def check_converged(world: ChaosWorld, declared: Declared, watch: Watch) -> None:
    """The end: all as declared, nothing else, and quiet."""
    reference = await reference_of(world, declared)
    for key in sorted(reference.accepted):
        object_ = await world.get(str(key))
        ready = object_.status.is_true("Ready", object_.generation)
        if not reference.is_judged(key):
            continue
        if reference.can_be_ready(key):
            await _check_as_declared(world, reference, object_)
        elif key not in reference.paused:
            assert not ready, f"{key} says Ready and what it stands on is not"
    known = {o.uid for o in await world.store.list()}
    _check_leftovers(world, known | watch.orphans)
    await check_quiet(world)
    await watch.check(world)


async def _check_as_declared(world: ChaosWorld, reference: Reference, object_: Object) -> None:
    key, status = object_.key, object_.status
    failed = status.condition("Stalled")
    assert status.is_true("Ready", object_.generation), f"{key} is not Ready: {failed} {status}"
    if key.kind == "Target":
        return
    digest = reference.digest(key)
    if key.kind == "Job":
        assert status.outputs["model"].digest == reference.artifact(key), f"{key}: other outputs"
        done = [r for r in object_.externals if r.state is RecordState.SUCCEEDED]
        assert digest in {r.wanted.digest for r in done}, f"{key} says it ran and did not"
        return
    held = [h for h in world.backend.held.values() if h.owner_uid == object_.uid]
    assert [h.digest for h in held] == [digest], f"{key}: the backend holds {held}"
    assert held[0].state is State.LIVE
    assert held[0].external.name.endswith(f"-{reference.accepted[key].target}")
    spec = _decisive(dump_resource(object_.resource)["spec"])
    assert _decisive(held[0].body) == spec, f"{key} stays as a foreign hand left it"


def _check_leftovers(world: ChaosWorld, known: set[str]) -> None:
    """What belongs to no object any more was left behind on purpose, or somebody else's."""
    for held in world.backend.held.values():
        allowed = held.owner_uid in known | {"somebody"}
        assert allowed, f"{held.external} belongs to nothing"
