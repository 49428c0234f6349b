"""The stage of the conformance kit: what a real adapter leaves to the loop is cut as well."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import TypeVar

import pytest

import rig.clocked
from windlass_adapters.testing.clocks import telling_the_time
from windlass_adapters.testing.life import Life, StageLoop
from windlass_adapters.testing.stepping import Cut, Killed

T = TypeVar("T")


def on_stage(running: Coroutine[object, object, T]) -> T:
    with asyncio.Runner(loop_factory=StageLoop) as runner:
        return runner.run(running)


class Diary:
    """A pass that writes down what it does, in tasks of its own and in threads."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.lock = asyncio.Lock()

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for name in ("a", "b"):
                    group.create_task(self.child(name))
            self.lines.append("end")
        finally:
            self.lines.append("finally")

    async def child(self, name: str) -> None:
        async with self.lock:
            await asyncio.sleep(30)
            await asyncio.to_thread(self.lines.append, f"{name} in a thread")
            await asyncio.sleep(0)
            self.lines.append(name)


WHOLE = ["a in a thread", "a", "b in a thread", "b", "end", "finally"]


def told(at: int | None, fault: BaseException | None = None) -> tuple[list[str], Cut, bool]:
    """What a pass has written when it is cut, an hour later; and whether its end was heard of."""

    async def play() -> tuple[list[str], Cut, bool]:
        cut = Cut() if at is None else Cut((at,), fault or Killed())
        diary, life, ended = Diary(), Life(lambda: cut), True
        try:
            await life.run(diary.run())
        except BaseException:
            ended = False
        await asyncio.sleep(3600)
        lines = list(diary.lines)
        await life.bury()
        cut.bury()
        return lines, cut, ended

    return on_stage(play())


def test_every_await_of_every_task_is_a_step() -> None:
    lines, cut, ended = told(None)
    assert (lines, ended) == (WHOLE, True)
    assert cut.steps > 10


def test_what_is_killed_never_goes_on_and_no_finally_runs() -> None:
    seen = set()
    for at in range(told(None)[1].steps):
        lines, cut, ended = told(at)
        assert not ended
        assert cut.struck == 1
        assert lines == WHOLE[: len(lines)]
        assert "finally" not in lines
        seen.add(len(lines))
    assert seen == {0, 1, 2, 3, 4}, "killed before and after each effect"


def test_a_pass_that_is_cancelled_takes_its_tasks_along() -> None:
    for at in range(told(None)[1].steps):
        lines, _, ended = told(at, asyncio.CancelledError())
        assert ended == (lines == WHOLE)
        assert not lines or lines[-1] == "finally"


def test_an_error_in_a_task_is_the_pass_s_error() -> None:
    for at in range(1, told(None)[1].steps):
        assert not told(at, ValueError("by the test"))[2]


def test_time_passes_only_when_nothing_can_go_on() -> None:
    async def play() -> list[float]:
        loop, passed = asyncio.get_running_loop(), list[float]()
        assert isinstance(loop, StageLoop)
        loop.tell(passed.append)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(40):
                await asyncio.sleep(86_000)
        return [loop.time(), sum(passed)]

    assert on_stage(play()) == [40, 40]


def test_a_stage_on_which_everybody_waits_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windlass_adapters.testing.life.PATIENCE", 0.1)

    async def play() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="everybody waits"):
        on_stage(play())


def test_modules_are_told_the_time_of_the_world() -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    with telling_the_time([rig.clocked], lambda: at):
        assert rig.clocked.now() == (at.timestamp(), at.timestamp())
        with pytest.raises(RuntimeError, match="nobody sleeps"):
            rig.clocked.rest()
    assert rig.clocked.now()[0] != at.timestamp()
