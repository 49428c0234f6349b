"""What is told to a kernel on an AWS account: short stories, each from where the last one ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from pydantic import JsonValue

from rig.cloud import Cloud

AUTOSCALED: dict[str, JsonValue] = {
    "min": 1,
    "max": 3,
    "metric": "concurrency",
    "target": 20,
    "stabilisation": {"up": "30s", "down": "30s"},
}


@dataclass(frozen=True)
class Story:
    """A change that somebody declares, and the state that must come of it."""

    name: str
    tell: Callable[[Cloud], Awaitable[None]]
    """Declares."""
    done: Callable[[Cloud], Awaitable[bool]]
    """Whether everything is as declared, in the account too."""


async def _serve(cloud: Cloud) -> None:
    await cloud.declare(cloud.target(), cloud.model(), cloud.deployment())


async def _change(cloud: Cloud) -> None:
    await cloud.declare(cloud.target(), cloud.model(content=b"better"), cloud.deployment())


async def _scale(cloud: Cloud) -> None:
    deployment = cloud.deployment(replicas=3)
    await cloud.declare(cloud.target(), cloud.model(content=b"better"), deployment)


async def _autoscale(cloud: Cloud) -> None:
    deployment = cloud.deployment(autoscaling=AUTOSCALED)
    await cloud.declare(cloud.target(), cloud.model(content=b"better"), deployment)


async def _autoscale_less(cloud: Cloud) -> None:
    deployment = cloud.deployment(autoscaling=AUTOSCALED | {"max": 2})
    await cloud.declare(cloud.target(), cloud.model(content=b"better"), deployment)


async def _remove(cloud: Cloud) -> None:
    await cloud.declare(cloud.target())


async def ready(cloud: Cloud) -> bool:
    """Everything that is declared is Ready, and the account holds one of each."""
    objects = await cloud.store.list()
    if not all(o.status.is_true("Ready", o.generation) for o in objects):
        return False
    one = all(len(cloud.names(kind)) == 1 for kind in ("endpoint", "endpoint-config", "model"))
    return one and len(objects) == 3 and cloud.held("endpoint")[0].status == "InService"


async def _gone(cloud: Cloud) -> bool:
    objects = await cloud.store.list()
    return [o.key.kind for o in objects] == ["Target"] and cloud.aws.monitor.held() == []


SERVE = Story("serve", _serve, ready)
CHANGE = Story("change", _change, ready)
SCALE = Story("scale", _scale, ready)
AUTOSCALE = Story("autoscale", _autoscale, ready)
AUTOSCALE_LESS = Story("autoscale less", _autoscale_less, ready)
STOP_SCALING = Story("stop scaling", _change, ready)
REMOVE = Story("remove", _remove, _gone)

LIFE = (SERVE, CHANGE, SCALE, AUTOSCALE, AUTOSCALE_LESS, STOP_SCALING, REMOVE)
"""A Deployment from its first document to its last."""


async def tell(cloud: Cloud, *stories: Story) -> None:
    """Tell stories one after the other, each to its end."""
    for story in stories:
        await story.tell(cloud)
        await cloud.until(partial(story.done, cloud))
