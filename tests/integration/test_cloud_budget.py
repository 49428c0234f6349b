"""How few calls SageMaker needs: as many as there are changes, hardly any without changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rig.cloud import Cloud, cloud_again, cloud_in
from rig.cloud_fleet import declare, go_on, not_ready, raised

STEADY = 0.02
"""Calls for each resource in a resync in which nothing has changed."""
AUDIT = 0.2
"""Calls for each resource in the hourly audit."""
RESYNC = 300.0


@pytest.fixture
async def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cloud]:
    """A kernel on an account, with a name by which it knows its things again.

    Small fleets go over HTTP, large ones ask the account in place.
    """
    parameters = getattr(request.node, "callspec", None)
    count = parameters.params.get("count", 0) if parameters else 0
    async with cloud_in(tmp_path, wire=count < 100, instance="prod") as world:
        yield world


@pytest.mark.parametrize("count", [20, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.timeout(1800)
async def test_a_steady_fleet_costs_few_calls(cloud: Cloud, count: int) -> None:
    """At most 0.02 calls for each resource in a resync, 0.2 in the hour of the audit."""
    await raised(cloud, count)
    await go_on(cloud, hours=2)  # everything has been looked at, and nothing is under way
    worst = []
    for _ in range(12):
        cloud.aws.calls.clear()
        await go_on(cloud, seconds=RESYNC)
        worst.append(len(cloud.aws.calls))
        assert cloud.aws.calls.mutations() == []
    least = sorted(worst)[len(worst) // 2]
    resources = count * 3  # an endpoint, a config and a model each
    assert least <= max(2, STEADY * count), f"{least} calls in a resync of {count}"
    assert sum(worst) <= 12 * max(2, STEADY * resources) + AUDIT * resources + 10, f"{worst}"


@pytest.mark.parametrize("count", [12, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.timeout(1800)
async def test_a_cold_start_over_a_healthy_fleet_changes_nothing(
    cloud: Cloud, tmp_path: Path, count: int
) -> None:
    """Another machine, an empty state folder, the same specs: all is found, nothing is touched."""
    names = await raised(cloud, count)
    cloud.aws.calls.clear()
    async with cloud_again(cloud, tmp_path / "second") as second:
        await declare(second, names)
        await go_on(second, minutes=10)
        changed = [call.operation for call in cloud.aws.calls.mutations()]
        assert changed == []
        assert await not_ready(second) == []


async def test_one_change_from_outside_costs_one_look(cloud: Cloud) -> None:
    """The list shows that it has changed; only that one is described."""
    await raised(cloud, 20)
    await go_on(cloud, hours=2)
    cloud.aws.calls.clear()
    cloud.aws.foreign.scale("wine-0007", "AllTraffic", 1)
    await go_on(cloud, seconds=RESYNC)
    assert cloud.aws.calls["DescribeEndpoint"] <= 2
