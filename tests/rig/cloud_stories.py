"""What is told to a kernel on an AWS account: short stories, each from where the last one ended."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from pydantic import JsonValue

from rig.cloud import Cloud, bucket_of
from windlass.store.base import Document

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
    sent = [key for key in cloud.aws.others.keys(bucket_of(cloud.aws)) if "/output/" not in key]
    if sent:  # results stay, and nothing else
        return False
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


RUNS: dict[str, dict[str, JsonValue]] = {
    "training": {"entrypoint": "run.py"},
    "processing": {"entrypoint": "run.py", "options": {"type": "processing"}},
    "transform": {"model": "wine", "inputs": {"data": {"file": "data.csv"}}},
}
"""A Job of each of SageMaker's kinds of jobs."""


def run_of(cloud: Cloud, kind: str, name: str = "run") -> Document:
    """A Job with one output."""
    output = {"transform": "output/data.csv.out", "training": "model.tar.gz"}.get(kind, "out.csv")
    spec: dict[str, JsonValue] = {
        "target": "cloud",
        "timeLimit": "1h",
        "outputs": {"made": output},
        **RUNS[kind],
    }
    files = {"run.py": b"print(1)\n", "data.csv": b"1\n"}
    named = {n: files[n] for n in files if n in json.dumps(spec)}
    return cloud.document("Job", name, spec, named)


async def _run(cloud: Cloud, kind: str) -> None:
    if not any(plan.what == "transform" for plan in cloud.aws.account.plans):
        cloud.aws.plan("transform", files={"data.csv.out": b"1"}, times=99)
    models = (cloud.model(),) if kind == "transform" else ()
    await cloud.declare(cloud.target(), *models, run_of(cloud, kind))


async def _has_run(cloud: Cloud) -> bool:
    objects = await cloud.store.list()
    return all(o.status.is_true("Ready", o.generation) for o in objects) and len(objects) > 1


async def _is_running(cloud: Cloud, kind: str) -> bool:
    return [one.status for one in cloud.held(f"{kind}-job")] == ["InProgress"]


def run_story(kind: str) -> Story:
    """A Job is declared, and runs to its end."""
    return Story(f"run {kind}", partial(_run, kind=kind), _has_run)


def start_story(kind: str) -> Story:
    """A Job is declared, and runs."""
    return Story(f"start {kind}", partial(_run, kind=kind), partial(_is_running, kind=kind))


async def tell(cloud: Cloud, *stories: Story) -> None:
    """Tell stories one after the other, each to its end."""
    for story in stories:
        await story.tell(cloud)
        await cloud.until(partial(story.done, cloud))
