"""The five oracles. They are asked always and all, whatever was done to the world before.

(a) end state, (b) creates and deletes per object as in the fault-free run, (c) quiescence,
(d) truthful status after every pass, (e) a gap-free event log of legal transitions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from windlass.store.base import Object
from windlass_adapters.base import State
from windlass_adapters.testing.backend import Held, MemoryBackend
from windlass_adapters.testing.world import World
from windlass_schemas import CloudEvent

QUIET_PASSES = 100


@dataclass(frozen=True)
class EndState:
    """What a story comes to, without what differs from run to run: uids, ids and times."""

    ready: tuple[tuple[str, str, str, int], ...]
    """By object: truth and reason of Ready, and the observed generation."""
    held: tuple[tuple[str, str, str], ...]
    """Object, digest and state of each external."""
    counts: tuple[tuple[tuple[str, str], int], ...]
    """Creates and deletes, by effect and object."""


async def end_state(world: World) -> EndState:
    """Describe how things stand now."""
    ready: list[tuple[str, str, str, int]] = []
    for object_ in await world.store.list():
        condition = object_.status.condition("Ready")
        assert condition is not None, f"{object_.key} has no Ready"
        observed = object_.status.observed_generation
        ready.append((str(object_.key), condition.status, condition.reason.value, observed))
    held = sorted((_subject(h), h.digest, h.state.value) for h in _shown(world.backend))
    made = sorted(counts(world.backend).items())
    return EndState(tuple(ready), tuple(held), tuple(made))


async def books(world: World) -> object:
    """What else decides the next pass: our records and holds, without names, ids and times."""
    return tuple(
        (
            str(object_.key),
            object_.hold is None,
            tuple(
                (r.state, r.attempt, r.wanted.digest, r.absent_since is None, len(r.healed))
                for r in object_.externals
            ),
        )
        for object_ in await world.store.list()
    )


def counts(backend: MemoryBackend) -> Mapping[tuple[str, str], int]:
    """How often each object had something made or removed, whatever the uid."""
    found: Counter[tuple[str, str]] = Counter()
    for (effect, name), count in backend.effects.items():
        if effect != "update":
            found[effect, _without_uid(name)] += count
    return dict(found)


def check_end(found: EndState, reference: EndState) -> None:
    """Oracles (a) and (b)."""
    assert found.ready == reference.ready, f"(a) status: {found.ready} not {reference.ready}"
    assert found.held == reference.held, f"(a) externals: {found.held} not {reference.held}"
    assert found.counts == reference.counts, f"(b) {found.counts} not {reference.counts}"


def check_single(world: World) -> None:
    """No name is held twice, at no time."""
    names = Counter(held.external[:2] for held in world.backend.held.values())
    twice = [name for name, count in names.items() if count > 1]
    assert not twice, f"(b) held more than once: {twice}"


async def check_quiet(world: World, passes: int = QUIET_PASSES) -> None:
    """Oracle (c): further passes change neither the backend nor the store."""
    writes, effects = world.writes(), world.backend.mutations()
    for number in range(passes):
        await world.next_pass()
        assert world.backend.mutations() == effects, f"(c) effect in quiet pass {number}"
        assert world.writes() == writes, f"(c) store write in quiet pass {number}"


async def check_truthful(world: World) -> None:
    """Oracle (d): who says Ready for a generation holds that very generation, live or succeeded."""
    mark = (world.writes(), world.deaths, world.backend.changes)
    if mark == world.seen_truthful:
        return  # neither the store nor the backend has changed since
    world.seen_truthful = mark
    check_single(world)
    for object_ in await world.store.list():
        if object_.status.is_true("Ready", object_.generation):
            _check_live(world, object_)


def _check_live(world: World, object_: Object) -> None:
    for record in object_.externals:
        if record.generation != object_.generation and record.state.value != "created":
            continue
        held = _held_for(world.backend, object_.uid, record.external[:2])
        if record.wanted.completes:
            ended = world.backend.written.get(record.external[:2])
            ok = record.state.value != "succeeded" or (
                ended is not None and ended.state is State.SUCCEEDED
            )
            assert ok, f"(d) {object_.key} says succeeded and {record.wanted.name} did not"
            continue
        assert held is not None, f"(d) {object_.key} says Ready and {record.wanted.name} is gone"
        live = held.in_force if held.state is State.PROGRESSING else held.digest
        assert live == record.wanted.digest, f"(d) {object_.key} says Ready too early"


def _held_for(backend: MemoryBackend, uid: str, name: tuple[str, str]) -> Held | None:
    found = (h for h in backend.held.values() if h.owner_uid == uid and h.external[:2] == name)
    return next(found, None)


async def check_events(world: World) -> None:
    """Oracle (e), over all events so far."""
    check_log(await world.events())


def check_log(events: Iterable[CloudEvent]) -> None:
    """Oracle (e): numbers without a gap per object, each transition from where the last one led."""
    seq: Counter[str] = Counter()
    truth: dict[tuple[str, str], str] = {}
    for event in events:
        data = event.data
        seq[data.uid] += 1
        assert data.seq == seq[data.uid], f"(e) {event.subject}: event {data.seq}, not {seq}"
        place = (data.uid, data.condition)
        before = truth.get(place, data.from_status)
        assert data.from_status == before, f"(e) {event.subject} {data.condition}: from {before}"
        truth[place] = data.to_status


def _shown(backend: MemoryBackend) -> list[Held]:
    """What is held, and of what is over only what every personality still lists."""
    return [h for h in backend.held.values() if h.state not in (State.SUCCEEDED, State.FAILED)]


def _subject(held: Held) -> str:
    return f"{held.external.role} {_without_uid(held.external.name)}"


def _without_uid(name: str) -> str:
    """``default.train-<uid>-<digest>-a1`` without the uid."""
    head, _, rest = name.partition("-")
    return f"{head}-{rest[9:]}".rstrip("-")
