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
from windlass_adapters.testing.port import KitBackend
from windlass_adapters.testing.world import World
from windlass_schemas import CloudEvent

QUIET_PASSES = 100
OVER = (State.SUCCEEDED, State.FAILED)
"""What is over is not part of the end state: backends forget it sooner or later."""


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
    things = [thing for thing in world.behind.things() if thing.state not in OVER]
    held = sorted((f"{t.role} {t.subject}", t.digest, t.state.value) for t in things)
    made = sorted(counts(world.behind).items())
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


def counts(backend: KitBackend) -> Mapping[tuple[str, str], int]:
    """How often each object had something made or removed, whatever the uid."""
    return {done: count for done, count in backend.counted().items() if done[0] != "update"}


def check_end(found: EndState, reference: EndState) -> None:
    """Oracles (a) and (b)."""
    assert found.ready == reference.ready, f"(a) status: {found.ready} not {reference.ready}"
    assert found.held == reference.held, f"(a) externals: {found.held} not {reference.held}"
    assert found.counts == reference.counts, f"(b) {found.counts} not {reference.counts}"


def check_single(world: World) -> None:
    """No name is held twice, at no time."""
    names = Counter((thing.role, thing.name) for thing in world.behind.things())
    twice = [name for name, count in names.items() if count > 1]
    assert not twice, f"(b) held more than once: {twice}"


async def check_quiet(world: World, passes: int = QUIET_PASSES) -> None:
    """Oracle (c): further passes change neither the backend nor the store."""
    writes, effects = world.writes(), world.behind.mutations()
    for number in range(passes):
        await world.next_pass()
        assert world.behind.mutations() == effects, f"(c) effect in quiet pass {number}"
        assert world.writes() == writes, f"(c) store write in quiet pass {number}"


async def check_truthful(world: World) -> None:
    """Oracle (d): who says Ready for a generation holds that very generation, live or succeeded."""
    mark = world.mark()
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
        key, wanted, behind = object_.key, record.wanted, world.behind
        if wanted.completes:
            ok = record.state.value != "succeeded" or behind.has_succeeded(object_.uid, wanted)
            assert ok, f"(d) {key} says succeeded and {wanted.name} did not"
        else:
            ok = behind.is_live(object_.uid, wanted)
            assert ok, f"(d) {key} says Ready and {wanted.name} is not there, or not as declared"


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
