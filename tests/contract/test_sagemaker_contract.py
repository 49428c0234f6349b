"""The sagemaker adapter under the conformance kit: an account that is strict.

The direct checks go over HTTP with the real clients; the schedules ask the same account in place,
where every await is a step. Some of them here, all of them in ``make test-long``.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from pydantic import JsonValue

from rig.cloud import Cloud, bucket_of, cloud_in
from rig.cloud_stories import AUTOSCALED
from rig.depth import LONG
from rig.sagemaker_stage import theatre
from windlass.store.base import Document
from windlass_adapters.base import Adapter, AdapterContext, Create, External, Found, Owner, Update
from windlass_adapters.sagemaker import SageMakerAdapter
from windlass_adapters.sagemaker.params import SageMakerParams
from windlass_adapters.testing.contract import AdapterContract, Rig
from windlass_adapters.testing.schedules import Depth, Theatre

pytestmark = pytest.mark.kit
FILES = {"run.py": b"print(1)\n", "data.csv": b"1\n"}
DATA: JsonValue = {"data": {"file": "data.csv"}}
SEARCH: dict[str, JsonValue] = {
    "entrypoint": "run.py",
    "target": "cloud",
    "timeLimit": "1h",
    "ranges": {"rate": {"min": 0.001, "max": 0.1}},
    "objective": {"metric": "loss", "regex": "loss: ([0-9.]+)"},
    "maxJobs": 2,
    "maxParallel": 1,
}


def _job(cloud: Cloud, name: str, spec: dict[str, JsonValue]) -> Document:
    named = {path: data for path, data in FILES.items() if path in json.dumps(spec)}
    return cloud.document("Job", name, {"target": "cloud", "timeLimit": "1h", **spec}, named)


class SageMakerRig(Rig):
    """One account, and an adapter in its time."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        cloud.aws.clock._source = None  # no kernel drives the time here
        clock = cloud.aws.clock

        class InTime(SageMakerAdapter):
            def seconds(self) -> float:
                return clock.seconds

            async def apply(self, owner: Owner, action: Create | Update) -> Found:
                found = await super().apply(owner, action)
                if found.external.role == "endpoint":  # only then the rest can be made
                    clock.advance(minutes=10)
                return found

        context = AdapterContext("install", "default/cloud", cloud.folder, cloud.artifacts)
        params = SageMakerParams.model_validate(cloud.target_params())
        self.adapter: Adapter = InTime(context, params)
        self.documents: Sequence[Document] = (
            _job(cloud, "train", {"command": ["train"]}),
            _job(cloud, "script", {"entrypoint": "run.py", "inputs": DATA}),
            _job(
                cloud,
                "clean",
                {"entrypoint": "run.py", "inputs": DATA, "options": {"type": "processing"}},
            ),
            _job(cloud, "predict", {"model": "wine", "inputs": DATA}),
            cloud.document("Sweep", "search", SEARCH, {"run.py": FILES["run.py"]}),
            cloud.model(),
            cloud.deployment(autoscaling=AUTOSCALED, options={"expose": "lambda"}),
        )
        artifact = cloud.artifacts.put(b"weights", "model.onnx")
        self.inputs = {
            "Model/default/wine:artifact": artifact.model_copy(update={"format": "onnx"})
        }

    async def count(self, owner: Owner) -> int:
        aws = self._cloud.aws
        aws.clock.advance(10)  # what was asked for takes its time
        everything = aws.account.held.values()
        made = [one for one in everything if one.tags.get("windlass:owner") == owner.uid]
        there = [one for one in made if one.tags.get("windlass:released") != "yes"]
        objects = aws.others.tags(bucket_of(aws)).values()
        sent = [tags for tags in objects if tags.get("windlass:owner") == owner.uid]
        fronts = {
            name.rpartition(":")[2].removeprefix("windlass-")  # a front and its role are one
            for held in (aws.others.functions(), aws.others.roles())
            for name, tags in held.items()
            if tags.get("windlass:owner") == owner.uid
        }
        return len(there) + len(sent) + len(fronts)

    async def finish(self, external: External) -> None:
        self._cloud.aws.clock.advance(minutes=30)

    def lose_reply(self) -> bool:
        self._cloud.aws.faults.add("lost", "CreateTrainingJob")
        return True

    def break_off(self) -> bool:
        self._cloud.aws.faults.add("unavailable", times=1000)
        return True

    async def close(self) -> None:
        """The account goes with the test."""


class TestSageMaker(AdapterContract):
    """An account in the strict double."""

    depth = Depth(stride=48) if LONG else Depth(reach=0, every=80, errors=3)

    def theatre(self) -> Theatre:
        """The real adapter above an account in this process."""
        return theatre()

    @asynccontextmanager
    async def open(self, folder: Path) -> AsyncIterator[tuple[Rig, Adapter]]:
        """A rig with its adapter opened; the account is there as long."""
        async with AsyncExitStack() as stack:
            cloud = await stack.enter_async_context(cloud_in(folder))
            rig = SageMakerRig(cloud)
            adapter = await stack.enter_async_context(rig.adapter)
            yield rig, adapter
