"""Questions to the cluster about runs, many in one command: hops 5 and 7.

Which runs an owner has, where one lies, and that some must stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from pydantic import JsonValue

from windlass_adapters.base import AdapterError, AmbiguousError
from windlass_adapters.slurm.gathering import Gathering
from windlass_adapters.slurm.login import Login
from windlass_adapters.slurm.naming import Place

TOGETHER = 200
"""Runs, or owners, in one command."""


class Cancellation(NamedTuple):
    """A run that must stop. ``why`` is empty when its owner asked for it."""

    place: Place
    uid: str
    why: str = ""


class Asking:
    """One command for all who ask at the same time. Calls raise AdapterError."""

    def __init__(self, login: Login, grace: timedelta) -> None:
        self._login = login
        self._grace = grace.total_seconds()
        self.cancel: Gathering[Cancellation, str] = Gathering(self._ask_cancel, TOGETHER)
        """What became of it: ``gone``, ``stopping``, ``unclear`` or ``foreign``."""
        self.find: Gathering[str, Sequence[Mapping[str, JsonValue]]] = Gathering(
            self._ask_find, TOGETHER
        )
        """What is known of each run of an owner, by its tag."""

    async def place(self, name: str) -> Place | None:
        """Where the run of that name lies."""
        match (await self._login.call("named", {"name": name})).get("place"):
            case [str(tag), str(token)]:
                return Place(tag, token)
        return None

    async def bury(self, place: Place, why: str) -> None:
        """See that a lost run can never begin any more."""
        await self._login.call("bury", {"runs": [[*place, why]]})

    async def _ask_cancel(self, asked: Sequence[Cancellation]) -> Sequence[str | AdapterError]:
        request: dict[str, JsonValue] = {
            "runs": [[c.place.owner, c.place.token, c.uid, c.why] for c in asked],
            "grace": self._grace,
        }
        found = (await self._login.call("cancel", request)).get("runs")
        told = found if isinstance(found, dict) else {}
        lost = AmbiguousError("the cluster did not say whether the run was stopped")
        answers = [told.get(c.place.token) for c in asked]
        return [answer if isinstance(answer, str) else lost for answer in answers]

    async def _ask_find(
        self, tags: Sequence[str]
    ) -> Sequence[Sequence[Mapping[str, JsonValue]] | AdapterError]:
        answer = (await self._login.call("find", {"owners": list(dict.fromkeys(tags))})).get("runs")
        runs = [run for run in answer if isinstance(run, dict)] if isinstance(answer, list) else []
        return [[run for run in runs if run.get("tag") == tag] for tag in tags]
