"""The same kernel on a real AWS account, in real time: opt-in, and with a limit on what it costs.

Needs ``--target=aws`` and, in the environment, WINDLASS_AWS_REGION, WINDLASS_AWS_ACCOUNT,
WINDLASS_AWS_ROLE, WINDLASS_AWS_BUCKET, WINDLASS_AWS_IMAGE (a container that serves and trains) and
WINDLASS_AWS_MAX_COST (dollars). Credentials come from the usual chain.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from pydantic import JsonValue

from rig.cloud import Cloud
from windlass.store.base import Document
from windlass_adapters.testing.adapter import MemoryAdapter
from windlass_adapters.testing.backend import MemoryBackend

HOURLY = {"ml.t2.medium": 0.07, "ml.m5.large": 0.14}
"""Dollars an hour, rounded up: what the scenarios run on."""
ESTIMATE = HOURLY["ml.t2.medium"] * 2 * 2 + HOURLY["ml.m5.large"] * 1
"""Two hours of two instances (an update has both fleets), and one hour of training."""
NEEDED = ("REGION", "ACCOUNT", "ROLE", "BUCKET", "IMAGE", "MAX_COST")


def settings(environment: Mapping[str, str]) -> dict[str, str]:
    """What the environment says. Raises ValueError that says what is missing, or too dear."""
    found = {name: environment.get(f"WINDLASS_AWS_{name}", "") for name in NEEDED}
    missing = [f"WINDLASS_AWS_{name}" for name, value in found.items() if not value]
    if missing:
        raise ValueError(f"--target=aws needs {', '.join(missing)}: see docs/adapters/sagemaker.md")
    if float(found["MAX_COST"]) < ESTIMATE:
        raise ValueError(
            f"the scenarios may cost {ESTIMATE:.2f} dollars and WINDLASS_AWS_MAX_COST allows "
            f"{found['MAX_COST']}; raise it, or leave --target=aws out"
        )
    return found


@dataclass
class LiveCloud(Cloud):
    """A kernel whose time is the world's: what is due later is waited for."""

    run: str = ""
    """In the names of everything: what another run has left is told apart."""

    def target_params(self) -> dict[str, JsonValue]:
        """What the Target says: the account of the environment."""
        return dict(self.params)

    async def next_pass(self) -> None:
        """Wait until the next pass is due, and run it."""
        if not self.due:
            await asyncio.sleep(5)
        else:
            key = min(self.due, key=lambda k: (self.due[k], k))
            await asyncio.sleep(max(0.0, (self.due[key] - datetime.now(UTC)).total_seconds()))
            self.now = datetime.now(UTC)
            await self.reconcile(key)
        self.now = datetime.now(UTC)

    def deployment(
        self, name: str = "wine", options: Mapping[str, JsonValue] | None = None, **spec: JsonValue
    ) -> Document:
        """On the cheapest instance there is, and gone by itself after two hours."""
        cheap: dict[str, JsonValue] = {
            "instanceType": "ml.t2.medium",
            "endpointName": f"windlass-{self.run}",
            "ttl": "2h",
        }
        return super().deployment(name, {**cheap, **(options or {})}, **spec)


@asynccontextmanager
async def live_in(folder: Path) -> AsyncIterator[LiveCloud]:
    """A kernel on the account of the environment. Whatever it made is removed at the end."""
    given = settings(os.environ)
    backend = MemoryBackend()
    run = uuid4().hex[:8]
    image = given["IMAGE"]
    params: dict[str, JsonValue] = {
        "region": given["REGION"],
        "account": given["ACCOUNT"],
        "role": given["ROLE"],
        "bucket": f"{given['BUCKET'].rstrip('/')}/windlass-tests/{run}",
        "instance": f"tests-{run}",
        "images": {"onnx": image, "pytorch": image, "sklearn": image, "tensorflow": image},
    }
    world = LiveCloud(folder, MemoryAdapter.for_backend(backend), backend, params=params, run=run)
    world.now = datetime.now(UTC)
    await world._open()
    try:
        yield world
    finally:
        try:
            await world.declare(world.target())
            for kind in ("Deployment/wine", "Job/train", "Model/wine"):
                await world.until_gone(kind)
        finally:
            await world.close()
