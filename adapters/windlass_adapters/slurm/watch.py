"""One look at the queue serves everybody who asks: hop 5.

Who asks gets the newest look that is new enough, or takes the next one together with all who wait.
The time between two looks grows while nothing happens, and when the cluster is slow or away.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace

from pydantic import JsonValue

from windlass_adapters.base import AdapterError, AmbiguousError, TransientError
from windlass_adapters.slurm.login import Login
from windlass_adapters.slurm.naming import Place
from windlass_adapters.slurm.params import SlurmParams
from windlass_adapters.slurm.snapshot import Look, parse_look

BUSY = 60.0
"""Seconds for which a change in the queue keeps the looks frequent."""
SLOW = 1.0
SLOW_FACTOR = 10.0
"""A controller that takes longer than SLOW seconds is not asked within this many times as long."""
BREATH = 2.0
"""The same for a whole look, which also waits for the login node and its disk."""
LONGEST_PAUSE = 300.0
FORGET = 900.0
"""Seconds after which a run that nobody asks for is no longer looked for."""
SWEEP_INTERVAL = 3600.0
_LEAST = 1.0


class Watch:
    """The newest look, and when the next one is due."""

    def __init__(self, login: Login, params: SlurmParams) -> None:
        self._login = login
        self._poll = params.limits.poll.total_seconds()
        self._idle = params.limits.idle_poll.total_seconds()
        self._keep = params.keep.total_seconds()
        self._turn = asyncio.Lock()
        self._look: Look | None = None
        self._states: Mapping[str, str] | None = None
        self._error: AdapterError | None = None
        self._due = 0.0
        self._interval = self._poll
        self._changed_at = time.monotonic()
        self._swept_at = 0.0
        self._tracked: dict[Place, float] = {}
        self._settled: set[Place] = set()

    @property
    def looks(self) -> int:
        """How many were taken."""
        return self._login.counts.execs["look", "ok"]

    @property
    def newest(self) -> Look | None:
        """The look that was taken last."""
        return self._look

    @property
    def tracked(self) -> int:
        """How many runs are looked for."""
        return len(self._tracked)

    def tracks(self, place: Place) -> bool:
        """Whether the looks are taken for this run."""
        return place in self._tracked

    @property
    def due_in(self) -> float:
        """Seconds until somebody who asks gets a new look."""
        return max(0.0, self._due - time.monotonic())

    def settle(self, place: Place) -> None:
        """Its end is known and kept: the next look tells the cluster."""
        self._settled.add(place)

    def forget(self, place: Place) -> None:
        """Nobody will ask for it again."""
        self._tracked.pop(place, None)

    def hurry(self) -> None:
        """Something was done: what was seen before it counts for little."""
        self._changed_at = time.monotonic()
        self._interval = self._poll
        self._due = min(self._due, self._changed_at + _LEAST)

    async def look(self, places: Collection[Place]) -> Look:
        """A look that covers these runs. Raises AdapterError; that is no news of any run."""
        now = time.monotonic()
        for place in places:
            self._tracked[place] = now
        if (found := self._current(places)) is not None:
            return found
        async with self._turn:
            if (found := self._current(places)) is not None:
                return found
            return await self._take()

    def _current(self, places: Collection[Place]) -> Look | None:
        waiting = time.monotonic() < self._due
        if self._error is not None and waiting:
            raise self._error
        look = self._look
        if look is None or not waiting:
            return None
        return look if look.covers(places) else None

    async def _take(self) -> Look:
        started = time.monotonic()
        error: AdapterError = AmbiguousError("the look at the queue was given up")
        try:
            look = await self._ask(started)
        except AdapterError as raised:
            error = raised
            raise
        else:
            self._after(look, started)
            return look
        finally:
            if self._look is None or self._look.taken != started:
                self._failed(error)

    async def _ask(self, started: float) -> Look:
        accounting = (await self._login.greeting()).accounting
        oldest = started - FORGET
        self._tracked = {p: at for p, at in self._tracked.items() if at > oldest}
        asked, settled = frozenset(self._tracked), frozenset(self._settled)
        sweeping = started - self._swept_at > SWEEP_INTERVAL
        whole = self._look is None
        request: dict[str, JsonValue] = {
            "runs": " ".join(["/".join(place) for place in asked]),
            "fetched": [list(place) for place in settled],
            "all": whole,
            "accounting": accounting,
            "sweep": self._keep if sweeping else None,
            "used": [*self._login.programs],
        }
        answer = await self._login.call("look", request)
        self._settled -= settled
        self._swept_at = started if sweeping else self._swept_at
        look = parse_look(answer, started, self._look)
        return replace(look, covered=asked, whole=whole, has_accounting=accounting)

    def _after(self, look: Look, started: float) -> None:
        now = time.monotonic()
        if self._look is None or look.lines != self._look.lines:
            states = _states(look)
            if states != self._states:
                self._changed_at, self._states = now, states
        quiet = now - self._changed_at > BUSY
        self._interval = min(self._interval * 1.5, self._idle) if quiet else self._poll
        pause = self._interval * random.uniform(0.9, 1.1)
        pause = max(pause, BREATH * (now - started))
        if look.waited > SLOW:
            pause = max(pause, SLOW_FACTOR * look.waited)
        self._look, self._error = look, None
        self._due = started + min(pause, LONGEST_PAUSE)
        counts = self._login.counts
        counts.look_seconds += now - started
        counts.jobs = Counter((self._states or {}).values())

    def _failed(self, error: AdapterError) -> None:
        known = isinstance(error, TransientError)
        self._error = error if known else TransientError(str(error), reason=error.reason)
        self._interval = min(max(self._interval, self._poll) * 2, LONGEST_PAUSE)
        self._due = time.monotonic() + self._interval


def _states(look: Look) -> Mapping[str, str]:
    return {row.id: row.state for rows in look.rows.values() for row in rows}
