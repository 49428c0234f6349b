"""Many Deployments of one Model on an account, and the time of a kernel that looks after them."""

from __future__ import annotations

from datetime import timedelta

from rig.cloud import Cloud


def names_of(count: int) -> list[str]:
    """The names of that many Deployments."""
    return [f"wine-{number:04d}" for number in range(count)]


async def declare(cloud: Cloud, names: list[str]) -> None:
    """Declare them, and what they need."""
    await cloud.declare(cloud.target(), cloud.model(), *(cloud.deployment(n) for n in names))


async def go_on(cloud: Cloud, **duration: float) -> None:
    """Let time pass with every pass that falls due: as ``after``, for thousands of them."""
    end = cloud.now + timedelta(**duration)
    while cloud.due and min(cloud.due.values()) <= end:
        cloud.now = max(cloud.now, min(cloud.due.values()))
        for key in sorted(key for key, at in cloud.due.items() if at <= cloud.now):
            await cloud.reconcile(key)
    cloud.now = end


async def not_ready(cloud: Cloud) -> list[str]:
    """What is not Ready at its newest generation."""
    return [
        f"{o.key}: {o.status.condition('Ready')}"
        for o in await cloud.store.list()
        if not o.status.is_true("Ready", o.generation)
    ]


async def raised(cloud: Cloud, count: int) -> list[str]:
    """A fleet that is in service and has been looked at for hours."""
    names = names_of(count)
    await declare(cloud, names)
    await go_on(cloud, minutes=10)
    assert await not_ready(cloud) == []
    return names
