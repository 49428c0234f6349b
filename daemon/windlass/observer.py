"""Look at backends: hop 5. What is asked within one turn of the event loop is asked as one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from windlass_adapters.base import Adapter, External, Observation, Owner, Unknown


class Observer:
    """Batches the observations of one target: one poll serves every object on it."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._asked: dict[External, Owner] = {}
        self._batch: asyncio.Future[Mapping[External, Observation]] | None = None

    async def observe(
        self, owner: Owner, externals: Sequence[External]
    ) -> Mapping[External, Observation]:
        """Look at one object's externals. A failed question gives Unknown for each."""
        if not externals:
            return {}
        if self._batch is not None:
            self._asked |= dict.fromkeys(externals, owner)
            answers = await asyncio.shield(self._batch)
        else:
            self._batch = asyncio.get_running_loop().create_future()
            self._asked = dict.fromkeys(externals, owner)
            answers = await self._ask(self._batch)
        missing = Unknown("the adapter gave no answer for it")
        return {external: answers.get(external, missing) for external in externals}

    async def _ask(
        self, batch: asyncio.Future[Mapping[External, Observation]]
    ) -> Mapping[External, Observation]:
        """Gather for one turn of the loop, then ask for all that has come together."""
        asked: list[tuple[Owner, External]] = []
        answers: Mapping[External, Observation] = {}
        message = "the question was cancelled"
        try:
            await asyncio.sleep(0)
            asked = [(owner, external) for external, owner in self._asked.items()]
            self._batch = None
            timeout = self._adapter.capabilities.timeout.total_seconds()
            async with asyncio.timeout(timeout):
                answers = await self._adapter.observe_many(asked)
        except TimeoutError:
            message = "the target did not answer in time"
        except Exception as error:
            message = str(error) or type(error).__name__
        finally:
            self._batch = None if self._batch is batch else self._batch
            failed = {external: Unknown(message) for _, external in asked}
            answers = {**failed, **answers}
            if not batch.done():
                batch.set_result(answers)
        return answers
