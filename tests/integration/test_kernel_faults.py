"""Backends that refuse, lose, dawdle, or are changed by somebody else: the end is as declared."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from windlass_adapters.base import AmbiguousError
from windlass_adapters.testing import PERSONALITIES, MemoryBackend, Personality
from windlass_adapters.testing.cast import IN_MEMORY
from windlass_adapters.testing.documents import document, kept_file
from windlass_adapters.testing.faults import denied, out_of_quota, throttled
from windlass_adapters.testing.oracles import EndState, check_end
from windlass_adapters.testing.schedules import TALLY, Theatre
from windlass_adapters.testing.stepping import Cut
from windlass_adapters.testing.stories import Story, stories_for

pytestmark = pytest.mark.kit
STORIES = stories_for(IN_MEMORY)
LAG = timedelta(seconds=3)
Arm = Callable[[MemoryBackend], None]
OPERATIONS = ("observe_many", "find", "create", "update", "delete")


def lost() -> Exception:
    return AmbiguousError("no reply")


@pytest.mark.parametrize("personality", PERSONALITIES, ids=lambda p: p.name)
@pytest.mark.parametrize("story", STORIES, ids=lambda s: s.name.replace(" ", "-"))
async def test_whatever_the_backend_refuses_or_loses_for_a_while_the_end_is_the_same(
    personality: Personality, story: Story
) -> None:
    armed: list[Arm] = []
    backends: list[MemoryBackend] = []

    def backend() -> MemoryBackend:
        made = MemoryBackend(personality, lag=LAG)
        backends[:] = [made]
        for arm in armed:
            arm(made)
        return made

    theatre = Theatre(personality.name, backend)

    async def told(*arms: Arm) -> EndState:
        armed[:] = arms
        TALLY.schedules += 1
        return await theatre.tell(story, Cut())

    reference = await told()
    asked = [operation for operation in OPERATIONS if backends[0].calls[operation]]
    assert {"observe_many", "create"} <= set(asked)
    for operation in asked:  # what is asked for nowhere in the story can fail nowhere
        for fault in (throttled, out_of_quota, denied, lost):
            check_end(await told(_failing(operation, fault)), reference)
        check_end(await told(_losing(operation)), reference)


def _failing(operation: str, fault: Callable[[], Exception]) -> Arm:
    return lambda backend: backend.fail(operation, fault(), fault())


def _losing(operation: str) -> Arm:
    return lambda backend: backend.lose_reply(operation, 2)


@pytest.mark.parametrize("personality", PERSONALITIES, ids=lambda p: p.name)
@pytest.mark.parametrize("by_looks", [False, True], ids=["by-time", "by-looks"])
async def test_what_takes_its_time_is_waited_for(personality: Personality, by_looks: bool) -> None:
    def slow() -> MemoryBackend:
        if by_looks:
            return MemoryBackend(personality, settles_after_looks=2)
        return MemoryBackend(personality, settles_after=timedelta(seconds=7))

    quick, late = Theatre("quick", lambda: MemoryBackend(personality)), Theatre("slow", slow)
    for story in STORIES:
        check_end(await late.tell(story, Cut()), await quick.tell(story, Cut()))
        TALLY.schedules += 2


@pytest.mark.parametrize("personality", PERSONALITIES, ids=lambda p: p.name)
async def test_what_somebody_else_removes_or_edits_is_put_right_once(
    personality: Personality,
) -> None:
    for remove in (True, False):
        theatre = Theatre("foreign", lambda: MemoryBackend(personality, lag=LAG))
        async with theatre.stage() as world:
            world.checks.clear()  # a status is as old as the last look
            await STORIES[0].act(world)
            held = world.backend.named("artifact")
            if remove:
                world.backend.remove(held)
            else:
                world.backend.edit(held, source="by hand")
            await world.after(minutes=3)
            again = world.backend.named("artifact")
            assert again.body.get("source") == {"file": "v1.onnx"}
            assert world.backend.mutations() == 2, "made, and put right"
            TALLY.schedules += 1


@pytest.mark.parametrize("personality", PERSONALITIES, ids=lambda p: p.name)
async def test_what_somebody_else_scales_is_scaled_back_once(personality: Personality) -> None:
    spec = {"model": "wine", "replicas": 2}
    theatre = Theatre("foreign", lambda: MemoryBackend(personality, lag=LAG))
    async with theatre.stage() as world:
        world.checks.clear()  # a status is as old as the last look
        await world.declare(kept_file(), document("Deployment", "wine", spec))
        await world.until_ready("Deployment/wine")
        before = world.backend.mutations()
        world.backend.edit(world.backend.named("server"), replicas=9)
        await world.after(minutes=3)
        assert world.backend.named("server").body["replicas"] == 2
        assert world.backend.mutations() == before + 1, "scaled back, and left alone then"
        TALLY.schedules += 1
