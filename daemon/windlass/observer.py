"""Look at backends: hop 5. What is asked within one turn of the event loop is asked as one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from windlass_adapters.base import AdapterError, External, Observation, Owner, Unknown

Ask = Callable[[Sequence[tuple[Owner, External]]], Awaitable[Mapping[External, Observation]]]
"""Asks a backend about many at once, in bounded time. Raises AdapterError."""


class Observer:
    """Batches the observations of one target: one poll serves every object on it."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._asked: dict[External, Owner] = {}
        self._batch: asyncio.Future[Mapping[External, Observation]] | None = None

    async def observe(
        self, owner: Owner, externals: Sequence[External]
    ) -> Mapping[External, Observation]:
        """Look at one object's externals. A question that fails gives Unknown for each."""
        if not externals:
            return {}
        self._asked |= dict.fromkeys(externals, owner)
        if self._batch is None:
            self._batch = asyncio.get_running_loop().create_future()
            answers = await self._gather(self._batch)
        else:
            answers = await asyncio.shield(self._batch)
        unanswered = Unknown("the adapter gave no answer for it")
        return {external: answers.get(external, unanswered) for external in externals}

    async def _gather(
        self, batch: asyncio.Future[Mapping[External, Observation]]
    ) -> Mapping[External, Observation]:
        """Wait one turn of the loop for others to join, then ask for all."""
        asked: list[tuple[Owner, External]] = []
        answers: Mapping[External, Observation] | None = None
        message = "the question was given up"
        try:
            await asyncio.sleep(0)
            asked = [(owner, external) for external, owner in self._asked.items()]
            self._asked, self._batch = {}, None
            answers = await self._ask(asked)
        except AdapterError as error:
            message = str(error)
        finally:  # those who joined get an answer, whatever happens to the one who asks
            if self._batch is batch:
                asked = [(owner, external) for external, owner in self._asked.items()]
                self._asked, self._batch = {}, None
            if answers is None:
                answers = {external: Unknown(message) for _, external in asked}
            batch.set_result(answers)
        return answers
