"""What 1,000 Deployments on SageMaker cost when nothing changes, beside a loop that asks for all.

Run by ``make bench``, with the real kernel and adapter, and an account on the loopback that lives
in the same process: processor time is of both. Prints value, goal and ok or missed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import aioboto3
import structlog

from rig.cloud import Cloud, cloud_in
from rig.cloud_fleet import go_on, raised
from rig.sagemaker.double import SageMakerDouble
from rig.sagemaker.samples import SCALED

COUNT = int(os.environ.get("BENCH_SAGEMAKER", "1000"))
RESYNC = 300.0
ROUNDS = 3
CALLS_GOAL, AUDIT_GOAL, WALL_GOAL = 0.02, 0.2, 1.0


@dataclass
class Cost:
    """What one round took."""

    calls: int
    wall: float
    cpu: float


async def cost(aws: SageMakerDouble, work: Callable[[], Awaitable[object]]) -> Cost:
    """Measure some work; processor time is of this process, account and daemon together."""
    aws.calls.clear()
    wall, cpu = time.perf_counter(), time.process_time()
    await work()
    return Cost(len(aws.calls), time.perf_counter() - wall, time.process_time() - cpu)


async def inventory(cloud: Cloud) -> Cost:
    """What the adapter alone does in a resync: one look at everything, as the kernel asks."""
    objects = [o for o in await cloud.store.list() if o.key.kind == "Deployment"]
    target = await cloud.target_of(objects[0])
    asked = [
        (cloud.reconciler.situations.owner(o), r.external) for o in objects for r in o.externals
    ]
    costs = []
    for _ in range(ROUNDS):
        cloud.now += timedelta(seconds=RESYNC)
        costs.append(await cost(cloud.aws, lambda: target.adapter.observe_many(asked)))
    return min(costs, key=lambda found: found.wall)


async def describe_everything(cloud: Cloud) -> Cost:
    """The loop that one writes first: everything by name, with its tags, 20 at a time."""
    names = cloud.names("endpoint")
    gate = asyncio.Semaphore(20)

    async def one(sagemaker: Any, scaling: Any, name: str) -> None:
        async with gate:
            endpoint = await sagemaker.describe_endpoint(EndpointName=name)
            config = await sagemaker.describe_endpoint_config(
                EndpointConfigName=endpoint["EndpointConfigName"]
            )
            variant = config["ProductionVariants"][0]
            model = await sagemaker.describe_model(ModelName=variant["ModelName"])
            for arn in (
                endpoint["EndpointArn"],
                config["EndpointConfigArn"],
                model["ModelArn"],
            ):
                await sagemaker.list_tags(ResourceArn=arn)
            id_ = f"endpoint/{name}/variant/{variant['VariantName']}"
            await scaling.describe_scalable_targets(
                ServiceNamespace=SCALED["ServiceNamespace"], ResourceIds=[id_]
            )
            await scaling.describe_scaling_policies(
                ServiceNamespace=SCALED["ServiceNamespace"], ResourceId=id_
            )

    async def all_of_them() -> None:
        async with (
            cloud.aws.client("sagemaker") as sagemaker,
            cloud.aws.client("application-autoscaling") as scaling,
        ):
            await asyncio.gather(*(one(sagemaker, scaling, name) for name in names))

    return await cost(cloud.aws, all_of_them)


def line(what: str, value: float, goal: float | None = None, unit: str = "") -> None:
    """One figure."""
    judged = "" if goal is None else f"   goal {goal:g}   {'ok' if value <= goal else 'missed'}"
    print(f"{what:<58}{value:>10.3f} {unit}{judged}")


async def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as folder:
        async with cloud_in(Path(folder), wire=False, instance="bench") as cloud:
            began = time.perf_counter()
            await raised(cloud, COUNT)  # in place; what is measured goes over HTTP
            cloud.wire = True
            await cloud.kill()
            await go_on(cloud, hours=2)
            print(f"{COUNT} Deployments, each declared and in service by the kernel, ")
            print(
                f"in {time.perf_counter() - began:.0f} s of this machine; the account is a double"
            )
            kernel = [
                await cost(cloud.aws, lambda: go_on(cloud, seconds=RESYNC)) for _ in range(13)
            ]
            steady = sorted(kernel, key=lambda found: found.calls)[len(kernel) // 2]
            audit = max(kernel, key=lambda found: found.calls)
            look = await inventory(cloud)
            naive = await describe_everything(cloud)
            line("calls for each Deployment, steady resync", steady.calls / COUNT, CALLS_GOAL)
            line(
                "calls for each Deployment, resync with the audit", audit.calls / COUNT, AUDIT_GOAL
            )
            line("look at everything, wall", look.wall, WALL_GOAL, "s")
            line("look at everything, processor (with the double's)", look.cpu, None, "s")
            line("resync by the kernel, one pass after the other, wall", steady.wall, None, "s")
            line("resync by the kernel, processor", steady.cpu, None, "s")
            line("describe-everything loop: calls for each", naive.calls / COUNT)
            line("describe-everything loop: wall", naive.wall, None, "s")
            line("describe-everything loop: processor", naive.cpu, None, "s")


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    aioboto3.Session = cache(aioboto3.Session)
    sys.exit(asyncio.run(main()))
