"""How few calls SageMaker needs: as many as there are changes, and hardly any when there are none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

import aioboto3
import pytest

from rig.cloud import Cloud, cloud_again, cloud_in
from windlass_schemas import Key

STEADY = 0.02
"""Calls for each resource in a resync in which nothing has changed."""
AUDIT = 0.2
"""Calls for each resource in the hourly audit."""
RESYNC = 300.0


@pytest.fixture(autouse=True)
def _one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """To read AWS's service models takes a second: all adapters of a test share one session."""
    monkeypatch.setattr(aioboto3, "Session", cache(aioboto3.Session))


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    """A kernel on an account, with a name by which it knows its things again."""
    async with cloud_in(tmp_path, instance="prod") as world:
        yield world


async def fleet(cloud: Cloud, count: int) -> list[str]:
    """That many Deployments of one Model, all in service."""
    names = [f"wine-{number:04d}" for number in range(count)]
    await declare(cloud, names)
    await cloud.after(minutes=5)
    await check_ready(cloud, names)
    return names


async def check_ready(cloud: Cloud, names: list[str]) -> None:
    """All of them are Ready."""
    for name in names:
        held = await cloud.store.get(Key.parse(f"Deployment/{name}"))
        assert held is not None
        assert held.status.is_true("Ready", held.generation), held.status.condition("Ready")


async def declare(cloud: Cloud, names: list[str]) -> None:
    """Declare them, and what they need."""
    await cloud.declare(cloud.target(), cloud.model(), *(cloud.deployment(n) for n in names))


@pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.timeout(1800)
async def test_a_steady_fleet_costs_few_calls(cloud: Cloud, count: int) -> None:
    """At most 0.02 calls for each resource in a resync, 0.2 in the hour of the audit."""
    await fleet(cloud, count)
    await cloud.after(hours=2)  # everything has been looked at, and nothing is under way
    worst = []
    for _ in range(12):
        cloud.aws.calls.clear()
        await cloud.after(seconds=RESYNC)
        worst.append(len(cloud.aws.calls))
        assert cloud.aws.calls.mutations() == []
    least = sorted(worst)[len(worst) // 2]
    resources = count * 3  # an endpoint, a config and a model each
    assert least <= max(2, STEADY * count), f"{least} calls in a resync of {count}"
    assert sum(worst) <= 12 * max(2, STEADY * resources) + AUDIT * resources + 10, f"{worst}"


@pytest.mark.parametrize("count", [20, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.timeout(1800)
async def test_a_cold_start_over_a_healthy_fleet_changes_nothing(
    cloud: Cloud, tmp_path: Path, count: int
) -> None:
    """Another machine, an empty state folder, the same specs: all is found, nothing is touched."""
    names = await fleet(cloud, count)
    cloud.aws.calls.clear()
    async with cloud_again(cloud, tmp_path / "second") as second:
        await declare(second, names)
        await second.after(minutes=10)
        changed = [call.operation for call in cloud.aws.calls.mutations()]
        assert changed == []
        await check_ready(second, names)


async def test_one_change_from_outside_costs_one_look(cloud: Cloud) -> None:
    """The list shows that it has changed; only that one is described."""
    await fleet(cloud, 20)
    await cloud.after(hours=2)
    cloud.aws.calls.clear()
    cloud.aws.foreign.scale("wine-0007", "AllTraffic", 1)
    await cloud.after(seconds=RESYNC)
    assert cloud.aws.calls["DescribeEndpoint"] <= 2
