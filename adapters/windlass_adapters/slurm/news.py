"""Which runs a look shows otherwise than a pass has seen them: hints for the kernel, beside hop 5.

With ten thousand runs nobody can ask for each of them every few seconds. While somebody listens
here, the looks are taken for the listener, and a pass that finds nothing new hears that it need not
come back soon. A hint that is lost costs that time and nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import timedelta
from math import ceil
from typing import NamedTuple

from windlass_adapters.base import AdapterError
from windlass_adapters.slurm.naming import Place
from windlass_adapters.slurm.outcome import Verdict
from windlass_adapters.slurm.snapshot import Look, Row
from windlass_adapters.slurm.watch import Watch
from windlass_schemas import Key

RARELY = 60.0
"""Seconds after which a run is asked for although nothing was told of it."""
MOST_RARELY = 300.0
UNASKED_PASSES = 100.0
"""How many runs may be asked for in a second although nothing was told of them."""
DEAF = 10.0
"""Seconds after which a listener that does not come back counts as gone."""
_STEP = 1.0
"""Seconds after which it is seen that a look has become due earlier."""
_LEAST = 0.05


class Said(NamedTuple):
    """What the newest pass over a run has seen, or what was told of it since."""

    key: Key
    verdict: Verdict
    rows: Sequence[Row]

    def differs(self, rows: Sequence[Row], verdict: Verdict, recorded: bool) -> bool:
        """Whether a pass would say something else; why a job waits is nothing to hurry for."""
        if recorded or self.states != [row.state for row in rows]:
            return verdict != self.verdict
        return (verdict.kind, verdict.reason) != (self.verdict.kind, self.verdict.reason)

    @property
    def states(self) -> list[str]:
        return [row.state for row in self.rows]


class News:
    """What passes have seen, held against each look."""

    def __init__(self, watch: Watch, judge: Callable[[Place, Look], Verdict]) -> None:
        self._watch = watch
        self._judge = judge
        self._said: dict[Place, Said] = {}
        self._seen: Look | None = None
        self._blind = False
        self._pressing: set[Key] = set()
        self._stirred = asyncio.Event()
        self._listened: float | None = None

    def say(self, place: Place, said: Said, look: Look) -> None:
        """A pass has seen this in a look; a newer one may have been compared meanwhile."""
        self._said[place] = said
        seen = self._seen
        if seen is not None and seen.taken > look.taken and self._is_news(place, seen):
            self.press(said.key)

    def knows(self, place: Place) -> bool:
        """Whether the looks are held against what a pass has said of it."""
        return place in self._said

    def press(self, key: Key) -> None:
        """A pass has not come to its end and should come again at once."""
        self._pressing.add(key)
        self._stirred.set()

    def forget(self, place: Place) -> None:
        """Nobody will ask for it again."""
        self._said.pop(place, None)

    @property
    def patience(self) -> timedelta | None:
        """After what time a run is worth another pass; None while nobody listens."""
        if self._listened is None or time.monotonic() - self._listened > DEAF:
            return None
        wait = max(RARELY, len(self._said) / UNASKED_PASSES)
        return timedelta(seconds=min(10 * ceil(wait / 10), MOST_RARELY))

    async def changed(self) -> Collection[Key]:
        """Wait until there are news; the objects that they are about."""
        while True:
            self._listened = time.monotonic()
            found = self._pressed()
            newest = self._watch.newest
            if newest is not None and newest is not self._seen:
                found |= self._compare(newest)
            elif self._watch.tracked and not self._watch.due_in:
                found |= await self._look()
            if found:
                return found
            wait = self._watch.due_in if self._watch.tracked else _STEP
            with suppress(TimeoutError):
                async with asyncio.timeout(min(max(wait, _LEAST), _STEP)):
                    await self._stirred.wait()

    def _pressed(self) -> set[Key]:
        self._stirred.clear()
        found, self._pressing = self._pressing, set()
        return found

    async def _look(self) -> set[Key]:
        try:
            return self._compare(await self._watch.look(()))
        except AdapterError:  # every pass says so from now on, and why
            blind, self._blind = self._blind, True
            return set() if blind else self._all()

    def _compare(self, look: Look) -> set[Key]:
        before, self._seen = self._seen, look
        if self._blind:
            self._blind = False
            return self._all()
        if before is not None and before.rows is look.rows and not look.records:
            return set()  # most looks, when thousands wait
        return {said.key for place, said in list(self._said.items()) if self._is_news(place, look)}

    def _all(self) -> set[Key]:
        return {said.key for said in self._said.values()}

    def _is_news(self, place: Place, look: Look) -> bool:
        said = self._said[place]
        if not self._watch.tracks(place):  # nobody asks for it any more
            self.forget(place)
            return False
        if not look.covers((place,)):
            return False
        rows = look.rows_of(place.token, place.job_name)
        recorded = place.token in look.records
        if rows == said.rows and not recorded:
            return False
        verdict = self._judge(place, look)
        self._said[place] = Said(said.key, verdict, rows)  # it is told once
        return said.differs(rows, verdict, recorded)
