"""The sagemaker adapter under the conformance kit: an account that is strict.

The direct checks go over HTTP with the real clients; the schedules ask the same account in place,
where every await is a step. Some of them here, all of them in ``make test-long``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from rig.cloud import Cloud, cloud_in
from rig.depth import LONG
from rig.sagemaker_stage import theatre
from windlass.store.base import Document
from windlass_adapters.base import Adapter, AdapterContext, External, Owner
from windlass_adapters.sagemaker import SageMakerAdapter
from windlass_adapters.sagemaker.params import SageMakerParams
from windlass_adapters.testing.contract import AdapterContract, Rig
from windlass_adapters.testing.schedules import Depth, Theatre


class SageMakerRig(Rig):
    """One account, and an adapter in its time."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        cloud.aws.clock._source = None  # no kernel drives the time here
        clock = cloud.aws.clock

        class InTime(SageMakerAdapter):
            def seconds(self) -> float:
                return clock.seconds

        context = AdapterContext("install", "default/cloud", cloud.folder, cloud.artifacts)
        params = SageMakerParams.model_validate(cloud.target_params())
        self.adapter: Adapter = InTime(context, params)
        script = {"train.py": b"print(1)"}
        job = cloud.document(
            "Job",
            "train",
            {
                "entrypoint": "train.py",
                "timeLimit": "1h",
                "target": "cloud",
            },
            script,
        )
        self.documents: Sequence[Document] = (job, cloud.model())

    async def count(self, owner: Owner) -> int:
        self._cloud.aws.clock.advance(10)  # what was asked for takes its time
        held = self._cloud.aws.account.held.values()
        tagged = sum(r.tags.get("windlass:owner") == owner.uid for r in held)
        async with self._cloud.aws.client("s3") as s3:
            bucket = str(self._cloud.target_params()["bucket"])
            kind, namespace, name = owner.key
            prefix = f"{kind.lower()}/{namespace}/{name}/{owner.uid}/"
            listed = await s3.list_objects_v2(Bucket=bucket, Prefix=prefix)
        models = [o for o in listed.get("Contents", []) if o["Key"].endswith("/model.tar.gz")]
        return tagged + len(models)

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

    depth = Depth(stride=48) if LONG else Depth(reach=0, every=80)

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
