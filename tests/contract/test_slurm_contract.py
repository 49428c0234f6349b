"""The Slurm adapter under the conformance kit: a real cluster, a real sshd, real jobs.

It cannot be stopped at every await of its own, since what it starts is real: daemons are killed at
named points elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from rig.hpc import Hpc
from rig.slurm import Cluster, cluster
from rig.slurm_site import Site
from windlass.store.base import Document
from windlass_adapters.base import External, Owner
from windlass_adapters.testing.contract import AdapterContract, Rig
from windlass_schemas import digest_of_resource


@pytest.fixture(scope="module", autouse=True)
def real() -> Iterator[None]:
    """One cluster for all checks; each has a Target of its own."""
    with cluster(Site()) as found:
        TestSlurm.cluster = found
        yield


class HpcRig(Rig):
    """One Target. Runs wait until they may end."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._hpc = Hpc(cluster, folder, grace="1s")
        self._install = "install"
        self._hpc.install = self._install
        self.adapter = self._hpc.adapter()
        self._go = self._hpc.root.parent / f"{self._hpc.root.name}.go"
        waits = f"until [ -e {self._go} ]; do sleep 0.05; done; echo a model > model.onnx"
        desired = self._hpc.shell(waits, outputs={"model": "model.onnx"})
        digest = digest_of_resource(desired.resource, {})
        self.documents: Sequence[Document] = (
            Document(desired.resource, desired.files, digest, "train.yaml", 1),
        )

    async def count(self, owner: Owner) -> int:
        """Its runs' folders."""
        found = await asyncio.to_thread(self._hpc.orders)
        return sum(order["uid"] == owner.uid for order in found)

    async def finish(self, external: External) -> None:
        self._hpc.cluster.here(self._go).touch()

    def lose_reply(self) -> bool:
        return False

    def break_off(self) -> bool:
        """The disk is there no more."""
        root = self._hpc.cluster.here(self._hpc.root)
        root.rename(root.with_suffix(".away"))
        return True

    async def close(self) -> None:
        self._hpc.cluster.here(self._go).touch()


class TestSlurm(AdapterContract):
    """A cluster."""

    cluster: ClassVar[Cluster]

    def make(self, folder: Path) -> Rig:
        return HpcRig(self.cluster, folder)
