"""A memory adapter that tells what changes: what the kernel makes of hints, and of lost ones."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import ClassVar

from pydantic import BaseModel

from windlass_adapters.base import (
    AdapterContext,
    Capabilities,
    External,
    Found,
    Observation,
    Owner,
    State,
    TellsChanges,
)
from windlass_adapters.testing import MemoryAdapter
from windlass_adapters.testing.contract import MemoryRig
from windlass_schemas import Key


class TellingAdapter(MemoryAdapter, TellsChanges):
    """While somebody listens, it is content to be asked once in ``patience``."""

    facts: ClassVar[Capabilities] = Capabilities(
        poll_interval=timedelta(seconds=0.05), resync_interval=timedelta(minutes=1)
    )
    patience: ClassVar[timedelta] = timedelta(minutes=1)

    def __init__(self, context: AdapterContext, params: BaseModel) -> None:
        super().__init__(context, params)
        self._seen: dict[External, tuple[Key, State]] = {}
        self._listened = False

    async def observe_many(
        self, externals: Sequence[tuple[Owner, External]]
    ) -> Mapping[External, Observation]:
        answers = dict(await super().observe_many(externals))
        for owner, external in externals:
            if isinstance(seen := answers[external], Found):
                self._seen[external] = owner.key, seen.state
                if self._listened and seen.state is State.PROGRESSING:
                    answers[external] = replace(seen, look_again=self.patience)
        return answers

    async def changed(self) -> Collection[Key]:
        self._listened = True
        while True:
            seen = list(self._seen.items())
            found = {key for external, (key, state) in seen if self._changed(external, state)}
            if found:
                return found
            await asyncio.sleep(0.01)

    def _changed(self, external: External, state: State) -> bool:
        """Whether it has become another than it was seen; told once."""
        seen = self._look(external)
        if not isinstance(seen, Found) or seen.state is state:
            return False
        self._seen[external] = self._seen[external][0], seen.state
        return True


class TellingRig(MemoryRig):
    """It, under the contract."""

    kind = TellingAdapter
