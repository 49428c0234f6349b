"""Look at backends: hop 5. What is asked within one turn of the event loop is asked as one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence

from windlass_adapters.base import AdapterError, External, Observation, Owner, Unknown

TOGETHER = 4
"""Who waits for one answer is woken so many in a turn of the event loop.

The first of them ask their next question while the others still think: a worker that has its answer
does not wait until 64 have made their plans. And no turn of the loop lasts long.
"""

Answers = Mapping[External, Observation]
Ask = Callable[[Sequence[tuple[Owner, External]]], Awaitable[Answers]]
"""Asks a backend about many at once, in bounded time. Raises AdapterError."""


class Observer:
    """Batches the observations of one target: one poll serves every object on it."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._batch: _Batch | None = None

    async def observe(self, owner: Owner, externals: Sequence[External]) -> Answers:
        """Look at one object's externals. A question that fails gives Unknown for each."""
        if not externals:
            return {}
        batch = self._batch
        if batch is None:
            batch = self._batch = _Batch()
            batch.add(owner, externals)
            answers = await self._gather(batch)
        else:
            batch.add(owner, externals)
            answers = await batch.answered()
        unanswered = Unknown("the adapter gave no answer for it")
        return {external: answers.get(external, unanswered) for external in externals}

    async def _gather(self, batch: _Batch) -> Answers:
        """Wait one turn of the loop for others to join, then ask for all."""
        answers: Answers | None = None
        unknown = Unknown("the question was given up")
        try:
            await asyncio.sleep(0)
            self._batch = None
            answers = await self._ask(batch.asked())
        except AdapterError as error:
            unknown = Unknown.because(error)
        finally:  # those who joined get an answer, whatever happens to the one who asks
            if self._batch is batch:
                self._batch = None
            if answers is None:
                answers = {external: unknown for _, external in batch.asked()}
            batch.answer(answers)
        return answers


class _Batch:
    """What is asked together, and who waits for the answer."""

    def __init__(self) -> None:
        self._asked: dict[External, Owner] = {}
        self._waiting: deque[asyncio.Future[Answers]] = deque()

    def add(self, owner: Owner, externals: Sequence[External]) -> None:
        self._asked |= dict.fromkeys(externals, owner)

    def asked(self) -> list[tuple[Owner, External]]:
        return [(owner, external) for external, owner in self._asked.items()]

    async def answered(self) -> Answers:
        waiter: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        return await waiter

    def answer(self, answers: Answers) -> None:
        """Wake the first of those who wait, and the others in the next turns of the loop."""
        for _ in range(min(TOGETHER, len(self._waiting))):
            waiter = self._waiting.popleft()
            if not waiter.done():  # it may have given up
                waiter.set_result(answers)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self.answer, answers)
