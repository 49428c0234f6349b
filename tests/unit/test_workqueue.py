"""The workqueue in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from unittest.mock import create_autospec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from windlass.agenda import OwnAgenda
from windlass.metrics import WorkqueueMetrics
from windlass.priority import Priority
from windlass.store.base import Store
from windlass.workqueue import QueueClosed, WorkQueue
from windlass_schemas import Key

pytestmark = [pytest.mark.looptime]


def key(name: str) -> Key:
    return Key("Job", "default", name)


def one_lane(bound: int = 64) -> Callable[[Key], tuple[str, int]]:
    return lambda _: ("only", bound)


def make(lane_of: Callable[[Key], tuple[str, int]]) -> WorkQueue:
    return WorkQueue(lane_of, WorkqueueMetrics(CollectorRegistry()))


async def test_a_key_added_many_times_waits_once() -> None:
    queue = make(one_lane())
    for _ in range(10_000):
        queue.add(key("a"))
    assert len(queue) == 1
    assert await queue.take() == key("a")
    queue.done(key("a"))
    assert not queue.holds(key("a"))


async def test_adds_during_a_pass_give_exactly_one_more_pass() -> None:
    queue = make(one_lane())
    queue.add(key("a"))
    await queue.take()
    for _ in range(10_000):
        queue.add(key("a"))
    assert len(queue) == 0, "never two workers on one key"
    queue.done(key("a"))
    assert await queue.take() == key("a")
    queue.done(key("a"))
    assert len(queue) == 0


async def test_a_key_that_steps_aside_leaves_its_lane_and_stays_held() -> None:
    queue = make(one_lane(1))
    queue.add(key("a"))
    queue.add(key("b"))
    assert await queue.take() == key("a")
    assert queue.full_lanes() == []
    waiting = asyncio.create_task(queue.take())
    await asyncio.sleep(1)
    assert (queue.working, queue.full_lanes()) == (1, ["only"])
    queue.step_aside(key("a"))
    assert await waiting == key("b")
    queue.add(key("a"))
    assert (queue.working, queue.active, len(queue)) == (1, 2, 0), "never two workers on one key"
    queue.done(key("a"))
    assert (queue.working, queue.active, len(queue)) == (1, 1, 1)
    queue.done(key("b"))
    assert await queue.take() == key("a")
    queue.done(key("a"))
    assert queue.quiet.is_set()


async def test_an_edit_goes_before_resyncs_even_when_the_key_waited_as_a_resync() -> None:
    queue = make(one_lane())
    for name in "abc":
        queue.add(key(name), Priority.RESYNC)
    queue.add(key("c"), Priority.EDIT)
    assert [await queue.take() for _ in "abc"] == [key("c"), key("a"), key("b")]


async def test_what_a_target_tells_goes_before_a_thousand_edits_on_the_same_lane() -> None:
    """An end is seen while as many runs are submitted."""
    queue = make(lambda _: ("cluster", 2))
    queue.add_all([key(f"new{n}") for n in range(1000)], Priority.EDIT)
    first = [await queue.take(), await queue.take()]
    own = OwnAgenda(create_autospec(Store, instance=True), queue)
    await own.told([key("ended")])
    queue.done(first[0])
    assert await queue.take() == key("ended")


async def test_a_full_lane_holds_up_only_itself() -> None:
    lanes = {key("hung1"): ("hung", 1), key("hung2"): ("hung", 1), key("ok"): ("fine", 1)}
    queue = make(lanes.__getitem__)
    queue.add_all(lanes)
    assert await queue.take() == key("hung1")
    assert await queue.take() == key("ok")
    waiting = asyncio.ensure_future(queue.take())
    await asyncio.sleep(1)
    assert not waiting.done()
    queue.done(key("hung1"))
    assert await waiting == key("hung2")


async def test_a_delayed_key_comes_at_its_time_or_earlier_when_added() -> None:
    loop = asyncio.get_running_loop()
    queue = make(one_lane())
    queue.add_after(key("a"), 60)
    queue.add_after(key("b"), 60)
    assert queue.delayed() == 2
    queue.add(key("b"))
    assert await queue.take() == key("b")
    started = loop.time()
    assert await queue.take() == key("a")
    assert loop.time() - started == pytest.approx(60)


async def test_closing_wakes_every_taker_and_drops_what_waits() -> None:
    queue = make(one_lane())
    takers = [asyncio.ensure_future(queue.take()) for _ in range(3)]
    await asyncio.sleep(0)
    queue.close()
    for taker in takers:
        with pytest.raises(QueueClosed):
            await taker
    queue.add(key("late"))
    with pytest.raises(QueueClosed):
        await queue.take()


async def test_a_cancelled_taker_passes_its_wake_up_on() -> None:
    queue = make(one_lane())
    first, second = asyncio.ensure_future(queue.take()), asyncio.ensure_future(queue.take())
    await asyncio.sleep(0)
    queue.add(key("a"))
    first.cancel()
    assert await second == key("a")


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(list(Priority))), max_size=60))
@settings(max_examples=60, deadline=None)
def test_whatever_is_added_is_worked_on_after_its_last_add_and_never_twice_at_once(
    adds: list[tuple[str, Priority]],
) -> None:
    async def scenario() -> None:
        queue = make(one_lane(2))
        active: set[Key] = set()
        last_add: dict[Key, int] = {}
        last_pass: dict[Key, int] = {}
        turn = 0

        async def work() -> None:
            nonlocal turn
            while True:
                try:
                    taken = await queue.take()
                except QueueClosed:
                    return
                assert taken not in active
                assert not queue.quiet.is_set()
                active.add(taken)
                turn += 1
                last_pass[taken] = turn
                await asyncio.sleep(0)
                active.discard(taken)
                queue.done(taken)

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(work())
            for name, priority in adds:
                turn += 1
                last_add[key(name)] = turn
                queue.add(key(name), priority)
                await asyncio.sleep(0)
            for _ in range(10 * len(adds) + 10):  # enough turns of the loop to empty it
                await asyncio.sleep(0)
            assert not len(queue)
            assert not queue.active
            assert queue.quiet.is_set()
            queue.close()
        assert all(last_pass[k] > at for k, at in last_add.items())

    asyncio.run(scenario())
