"""KServe's own clients as judges, REST and gRPC: in a venv of their own, made on the first use.

Not on every commit: its installation takes a minute. ``make test-long`` has it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rig import onnx_models
from rig.serving import Serving

ROOT = Path(__file__).parents[2]
WANTED = {
    "FP32": ["0.5", "-2.0"],
    "FP64": ["0.1", "3.0"],
    "INT64": ["1", "-2"],
    "UINT8": ["1", "255"],
    "BOOL": ["True", "False"],
    "BYTES": ["é", ""],
}


def python() -> Path:
    """Of a venv that has KServe."""
    folder = Path(os.environ.get("BENCH_VENVS", ROOT / ".bench")) / "kserve"
    if not (folder / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "-q", "kserve==0.21.0"]
        subprocess.run(pip, check=True)
        (folder / "done").touch()
    return folder / "bin/python"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_every_call_of_kserves_clients_works(tmp_path: Path) -> None:
    with Serving(tmp_path / "state", 0, "--grpc-port", "0") as serving:
        for datatype in WANTED:
            model = onnx_models.identity(tmp_path / f"{datatype}.onnx", datatype)
            serving.deploy(datatype.lower(), model)
        ports = [str(serving.port), str(serving.announcement["grpc_port"])]
        done = subprocess.run(
            [str(python()), str(ROOT / "tests/rig/kserve_calls.py"), *ports],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rest, grpc = found["rest"], found["grpc"]
    assert "400 Bad Request" in rest.pop("wrong")
    assert rest.pop("unknown") is False
    assert rest.pop("v1") == {"predictions": [[0.5, -2.0]]}
    for protocol in (rest, grpc):
        states = [name for name in protocol if "live" in name or "ready" in name]
        assert [protocol.pop(name) for name in states] == [True] * len(states)
    assert grpc == WANTED
    for way in ("json", "binary"):
        assert {name: rest.pop(f"{name} {way}") for name in WANTED} == WANTED
    assert rest == {}
