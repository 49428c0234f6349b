"""A state folder that cannot be written: said clearly, and nothing is lost."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from rig.project import Project

BODY = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [3.0]}]},
)


def fill(path: Path) -> None:
    """Write until nothing more fits, down to the last byte."""
    with path.open("wb", buffering=0) as filler:
        for size in (1 << 16, 1 << 10, 1):
            with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
                while True:
                    filler.write(b"x" * size)


def test_a_full_disk_stops_changes_but_no_answers_and_heals_when_there_is_room(
    stub: Project,
) -> None:
    """Requests go on, the reason is said, and the commit is taken over once it can be."""
    daemon = stub.up_on_small_disk(32)
    stub.await_ready("Deployment/stub")
    filler = daemon.inside(stub.state) / "filler"
    fill(filler)

    stub.edit("stub.yaml", "factor: 2.0", "factor: 5.0")
    stub.commit("Change the factor")
    stub.until(lambda: "make room on the disk" in daemon.said, "the daemon says why")
    assert stub.infer("stub", BODY) == {"y": (6.0,)}
    ready = stub.windlass("doctor", code=None)
    assert "make room on the disk" in ready

    filler.unlink()
    stub.until(lambda: stub.infer("stub", BODY) == {"y": (15.0,)}, "the change is served")
    stub.await_ready("Deployment/stub")
    assert "Traceback" not in daemon.said


def test_a_read_only_state_folder_is_refused_in_one_line(stub: Project) -> None:
    """Before anything starts, with what to do."""
    daemon = stub.up_on_small_disk(1, "ro")
    assert daemon.ended() == 1
    assert "cannot be written" in daemon.said
    assert "--state" in daemon.said
    assert "Traceback" not in daemon.said
