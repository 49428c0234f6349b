"""Ask for many at once: what is asked while an answer is on its way goes into the next question.

Serves hops 5 and 7. Nobody runs in the background: whoever comes first asks for all who wait, so
that each question has a caller who is bound by a time limit of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from windlass_adapters.base import AdapterError, AmbiguousError

Q = TypeVar("Q")
A = TypeVar("A")


class Gathering(Generic[Q, A]):
    """Turns calls about one into calls about at most ``limit``, one after the other."""

    def __init__(
        self,
        ask: Callable[[Sequence[Q]], Awaitable[Sequence[A | AdapterError]]],
        limit: int,
        window: float = 0.02,
    ) -> None:
        """``ask`` answers each question in its place; ``window`` is in seconds."""
        self._ask = ask
        self._limit = limit
        self._window = window
        self._waiting: list[tuple[Q, asyncio.Future[A | AdapterError]]] = []
        self._turn = asyncio.Lock()

    async def __call__(self, question: Q) -> A:
        """The answer to one question. Raises the AdapterError that is its answer."""
        mine: asyncio.Future[A | AdapterError] = asyncio.get_running_loop().create_future()
        entry = (question, mine)
        self._waiting.append(entry)
        try:
            async with self._turn:
                while not mine.done():
                    await self._serve()
        finally:  # a caller who is gone asks for nothing any more
            if entry in self._waiting:
                self._waiting.remove(entry)
        answer = mine.result()
        if isinstance(answer, AdapterError):
            raise answer
        return answer

    async def _serve(self) -> None:
        await asyncio.sleep(self._window)
        batch, self._waiting = self._waiting[: self._limit], self._waiting[self._limit :]
        lost: AdapterError = AmbiguousError("the question was given up before its answer came")
        answers: Sequence[A | AdapterError] = ()
        try:
            answers = await self._ask([question for question, _ in batch])
        except AdapterError as error:
            lost = error
        finally:  # those who joined get an answer, whatever happens to the one who asks
            for number, (_, answer) in enumerate(batch):
                if not answer.done():
                    answer.set_result(answers[number] if number < len(answers) else lost)
