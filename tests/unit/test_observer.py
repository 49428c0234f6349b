"""One poll serves every object on a target."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from windlass.observer import Observer
from windlass_adapters.base import (
    Absent,
    External,
    Observation,
    Owner,
    TransientError,
    Unknown,
    WaitingError,
)
from windlass_schemas import Key, Reason

OWNER = Owner("install", "uid", Key.parse("Job/a"))
Asked = Sequence[tuple[Owner, External]]


def external(name: str) -> External:
    return External("run", name, name)


class Backend:
    """Answers Absent for all, after a while; remembers the questions."""

    def __init__(self, delay: float = 0.0, error: Exception | None = None) -> None:
        self.questions: list[list[str]] = []
        self._delay = delay
        self._error = error

    async def ask(self, asked: Asked) -> Mapping[External, Observation]:
        self.questions.append([e.name for _, e in asked])
        await asyncio.sleep(self._delay)
        if self._error is not None:
            raise self._error
        return {e: Absent() for _, e in asked}


async def test_what_is_asked_at_once_is_one_question() -> None:
    backend = Backend()
    observer = Observer(backend.ask)
    names = [f"r{i}" for i in range(1000)]
    answers = await asyncio.gather(*(observer.observe(OWNER, [external(n)]) for n in names))
    assert backend.questions == [names]
    assert all(answer == {external(n): Absent()} for n, answer in zip(names, answers, strict=True))


@pytest.mark.looptime
async def test_who_comes_while_a_question_is_out_is_in_the_next() -> None:
    backend = Backend(delay=1.0)
    observer = Observer(backend.ask)
    first = asyncio.ensure_future(observer.observe(OWNER, [external("a")]))
    await asyncio.sleep(0.5)
    later = [asyncio.ensure_future(observer.observe(OWNER, [external(n)])) for n in "bc"]
    await asyncio.gather(first, *later)
    assert backend.questions == [["a"], ["b", "c"]]


async def test_a_failed_question_is_unknown_for_all_and_never_absent() -> None:
    observer = Observer(Backend(error=TransientError("login node hangs")).ask)
    answers = await asyncio.gather(*(observer.observe(OWNER, [external(n)]) for n in "ab"))
    assert [list(a.values()) for a in answers] == [[Unknown("login node hangs")]] * 2


@pytest.mark.looptime
async def test_those_who_joined_get_an_answer_when_the_one_who_asks_is_cancelled() -> None:
    backend = Backend(delay=60.0)
    observer = Observer(backend.ask)
    first = asyncio.ensure_future(observer.observe(OWNER, [external("a")]))
    second = asyncio.ensure_future(observer.observe(OWNER, [external("b")]))
    await asyncio.sleep(1)
    first.cancel()
    assert isinstance((await second)[external("b")], Unknown)
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_an_adapter_that_forgets_one_has_not_said_that_it_is_absent() -> None:
    async def ask(asked: Asked) -> Mapping[External, Observation]:
        return {}

    answers = await Observer(ask).observe(OWNER, [external("a")])
    assert isinstance(answers[external("a")], Unknown)


async def test_a_question_that_failed_says_why() -> None:
    """Who is not let in must be told apart from a backend that is away; waiting is no reason."""
    refused = WaitingError("the key is refused", reason=Reason.UNAUTHORIZED)
    for error, reason in (
        (refused, Reason.UNAUTHORIZED),
        (WaitingError("busy"), Reason.BACKEND_UNAVAILABLE),
        (TransientError("away"), Reason.BACKEND_UNAVAILABLE),
    ):
        observer = Observer(Backend(error=error).ask)
        answers = await observer.observe(OWNER, [external("a")])
        assert answers == {external("a"): Unknown(str(error), reason)}
