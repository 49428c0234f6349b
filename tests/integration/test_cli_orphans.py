"""``windlass orphans``: what is left behind, what it costs, and how it goes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from rig.api_daemon import ApiDaemon, QuietAdapter, api_daemon, now
from rig.command_line import Ran, windlass
from windlass_adapters.base import FindsOrphans, Orphan, Owner, TransientError

Windlass = Callable[..., Awaitable[Ran]]
MADE = now() - timedelta(hours=5)


class Leaving(QuietAdapter, FindsOrphans):
    """A backend that still holds something."""

    left: Sequence[Orphan] = ()
    silent = False
    removed: Sequence[str] = ()

    async def orphans(self, living: Collection[Owner]) -> Sequence[Orphan]:
        if self.silent:
            raise TransientError("no route to host")
        return self.left

    async def collect(self, orphan: Orphan) -> None:
        raise AssertionError("nobody has asked for that")

    async def remove(self, orphan: Orphan) -> None:
        self.removed = (*self.removed, orphan.name)
        self.left = [each for each in self.left if each != orphan]


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[ApiDaemon]:
    """A daemon whose backend holds an endpoint, a job of unknown cost, and an old config."""
    async with api_daemon(tmp_path, Leaving) as found:
        assert isinstance(found.back, Leaving)
        found.back.left = [
            Orphan(
                "endpoint", "wine", "Deployment/default/wine", MADE, "0.23 $ an hour", False, 0.23
            ),
            Orphan("run", "train-a1", "Job/lab/train", MADE, "no rate known", False),
            Orphan("config", "wine-old", "Deployment/default/wine", MADE, "", True),
        ]
        yield found


@pytest.fixture
def ask(daemon: ApiDaemon) -> Windlass:
    async def run(*arguments: str) -> Ran:
        return await windlass(*arguments, "--server", daemon.url)

    return run


async def test_it_lists_what_is_left_and_sums_what_it_costs(ask: Windlass) -> None:
    """A row for each, a sum for each target; what has no rate is counted and not called free."""
    ran = await ask("orphans")
    rows = [line.split(maxsplit=5) for line in ran.out.splitlines()]
    assert rows[0] == ["TARGET", "WHAT", "AGE", "DOLLARS/H", "MADE-FOR", "COST"]
    assert [row[1] for row in rows[1:]] == ["endpoint/wine", "run/train-a1", "config/wine-old"]
    assert [row[3] for row in rows[1:]] == ["0.23", "?", "0"]
    assert rows[1][4] == "Deployment/wine"
    assert ran.err == (
        "default/local: 3 left behind, 0.23 $ an hour, and 1 without a rate (params.rates)\n"
    )


async def test_it_removes_only_what_is_named(daemon: ApiDaemon, ask: Windlass) -> None:
    """Looking removes nothing, not even what is free; a wrong name removes nothing either."""
    assert isinstance(daemon.back, Leaving)
    refused = await ask("orphans", "--remove", "endpoint/wine", "--remove", "endpoint/other")
    assert refused.code == 1
    assert "endpoint/other is not left behind" in refused.err
    assert not daemon.back.removed
    ran = await ask("orphans", "--remove", "endpoint/wine")
    assert ran.out.endswith("endpoint/wine on default/local is being removed\n")
    assert list(daemon.back.removed) == ["wine"]
    again = await ask("orphans", "--remove", "endpoint/wine")
    assert again.code == 1


async def test_one_target_and_json(ask: Windlass) -> None:
    """For programs; another target has nothing."""
    found = json.loads((await ask("orphans", "-o", "json")).out)
    assert found["orphans"][0]["dollarsAnHour"] == 0.23
    assert found["orphans"][0]["madeFor"] == "Deployment/default/wine"
    other = await ask("orphans", "--target", "lab/cloud")
    assert (other.code, other.out) == (0, "")
    assert "nothing is left behind" in other.err


async def test_a_target_that_does_not_answer_is_named(daemon: ApiDaemon, ask: Windlass) -> None:
    """Nothing is not the answer then."""
    assert isinstance(daemon.back, Leaving)
    daemon.back.silent = True
    ran = await ask("orphans")
    assert "default/local could not be asked: no route to host" in ran.err
    assert "nothing is left behind" not in ran.err
