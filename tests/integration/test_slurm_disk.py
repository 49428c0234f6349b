"""What the cluster's disk did to a file is noticed before a run uses it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.hpc import Hpc, outputs_of, ran
from rig.slurm import Cluster, cluster
from windlass_adapters.base import State, TransientError

SCRIPT = b"#!/bin/sh\necho whole > out.txt\n"


@pytest.fixture(scope="module")
def site() -> Iterator[Cluster]:
    """A cluster."""
    with cluster() as running:
        yield running


@pytest.mark.parametrize("broken", [b"", b"#!/bin/sh\necho other > out.txt\n"])
async def test_a_script_that_the_disk_lost_or_changed_is_sent_again(
    site: Cluster, tmp_path: Path, broken: bytes
) -> None:
    """A crash can leave an empty file under the right name; nobody runs it."""
    hpc = Hpc(site, tmp_path)
    async with hpc.adapter() as adapter:
        for number in range(2):
            desired = hpc.job(
                f"train-{number}",
                uid=f"{number:016x}",
                kept={"run.sh": SCRIPT},
                entrypoint="run.sh",
                outputs={"out": "out.txt"},
            )
            found = await ran(adapter, desired)
            assert found.state is State.SUCCEEDED, found.message
            assert outputs_of(hpc, found) == {"out": b"whole\n"}
            (blob,) = (p for p in site.here(hpc.root).glob("cas/sha256/*/*") if p.is_file())
            blob.chmod(0o644)
            blob.write_bytes(broken)
            blob.chmod(0o444)


async def test_a_root_that_cannot_be_made_is_named_and_nothing_else(
    site: Cluster, tmp_path: Path
) -> None:
    """Most often a folder above it that is somebody else's, or was written wrongly."""
    hpc = Hpc(site, tmp_path, remoteRoot="/nowhere/ada/windlass")
    words = "^/nowhere on .* cannot be made or written: Permission denied; params.remoteRoot must"
    async with hpc.adapter() as adapter:
        with pytest.raises(TransientError, match=words):
            await adapter.find(hpc.shell("true").owner)
