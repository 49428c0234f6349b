"""The local adapter killed and disturbed at every await, above a machine without processes.

Its files are real ones. Kills in the middle of what is left to a thread, and real processes, are in
``test_kill_points``.
"""

from __future__ import annotations

import pytest

from rig.depth import DEPTH
from rig.fakemachine import FakeMachine
from windlass.store.base import Document
from windlass_adapters.testing.cast import Cast
from windlass_adapters.testing.contract import Schedules
from windlass_adapters.testing.documents import filed
from windlass_adapters.testing.schedules import Theatre

pytestmark = pytest.mark.kit
SCRIPT = b"print(1)"


def content(version: int) -> bytes:
    return f"model {version}".encode()


def training(name: str, version: int) -> Document:
    spec = {
        "entrypoint": "train.py",
        "params": {"version": version},
        "outputs": {"model": "model.onnx"},
        "retries": 1,
    }
    return filed("Job", name, spec, {"train.py": SCRIPT})


def kept(name: str, version: int) -> Document:
    source = {"source": {"file": "m.onnx"}}
    return filed("Model", name, source, {"m.onnx": content(version)})


def served(name: str, version: int) -> Document:
    return filed("Deployment", name, {"model": f"m{version}"}, {})


class TestLocalJobs(Schedules):
    """Runs in folders."""

    depth = DEPTH.real

    def theatre(self) -> Theatre:
        return Theatre("local Jobs", FakeMachine, Cast(run=training, contents=[SCRIPT]))


class TestLocalModels(Schedules):
    """Artifacts that are looked into."""

    depth = DEPTH.real

    def theatre(self) -> Theatre:
        cast = Cast(lasting=kept, contents=[content(1), content(2)])
        return Theatre("local Models", FakeMachine, cast)


class TestLocalDeployments(Schedules):
    """Models in a serving process, which is started when it is needed."""

    depth = DEPTH.real

    def theatre(self) -> Theatre:
        beside = [kept("m1", 1), kept("m2", 2)]
        contents = [content(1), content(2)]
        cast = Cast(lasting=served, beside=beside, contents=contents)
        return Theatre("local Deployments", FakeMachine, cast)
