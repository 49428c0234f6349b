"""Who is measured: how each one is installed, started and asked. Peers get a venv of their own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
RUNTIME = ("onnxruntime", "numpy")


@dataclass(frozen=True)
class Contender:
    """One server in one configuration."""

    name: str
    command: tuple[str, ...]
    """``{python}`` is the venv's, ``{port}`` a free one, ``{work}`` an empty folder."""
    needs: tuple[str, ...] = ()
    """Requirements of its venv; without any it runs in ours."""
    venv: str = ""
    path: str = "/v2/models/m/infer"
    env: Mapping[str, str] = field(default_factory=dict)
    binary: bool = False
    """Whether it is asked with binary tensors instead of JSON."""
    files: Mapping[str, str] = field(default_factory=dict)
    """What must lie in the folder: text, or ``@`` and a file beside this one."""
    main: bool = True
    """Whether it is measured without being asked for."""
    heavy: bool = False
    """Whether it is measured on heavy models too."""


_MOSEC = ("{python}", str(HERE / "peers/mosec_app.py"), "--port", "{port}", "--log-level", "error")
_LITSERVE = ("{python}", str(HERE / "peers/litserve_app.py"))
_MLSERVER_SETTINGS = {
    "http_port": 0,
    "grpc_port": 0,
    "parallel_workers": 0,
    "host": "127.0.0.1",
    "metrics_endpoint": None,
    "debug": False,
}
_TRITON_CONFIG = """
name: "m"
backend: "python"
max_batch_size: 32
input [{ name: "x" data_type: TYPE_FP32 dims: [784] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [10] }]
instance_group [{ kind: KIND_CPU count: 1 }]
dynamic_batching {}
"""
_TRITON = ("{python}", str(HERE / "peers/triton_start.py"), "{site}", "{work}", "{port}")
_TRITON_FILES = {"models/m/config.pbtxt": _TRITON_CONFIG, "models/m/1/model.py": "@triton_model.py"}

CONTENDERS = (
    Contender("Windlass", ("windlass",), heavy=True),
    Contender("Windlass binary", ("windlass",), binary=True),
    Contender("Windlass unbatched", ("windlass", "1")),
    Contender(
        "FastAPI",
        (
            *("{python}", "-m", "uvicorn", "--app-dir", str(HERE / "peers"), "fastapi_app:app"),
            *("--port", "{port}", "--no-access-log", "--log-level", "warning"),
        ),
        ("fastapi", "uvicorn[standard]", *RUNTIME),
        "fastapi",
        heavy=True,
    ),
    Contender(
        "mosec batching",
        _MOSEC,
        ("mosec", *RUNTIME),
        "mosec",
        "/inference",
        {"BATCH": "32"},
        heavy=True,
    ),
    Contender("mosec", _MOSEC, ("mosec", *RUNTIME), "mosec", "/inference", {"BATCH": "1"}),
    Contender("LitServe", _LITSERVE, ("litserve", *RUNTIME), "litserve", env={"BATCH": "1"}),
    Contender(
        "MLServer",
        ("{bin}/mlserver", "start", "{work}"),
        ("mlserver==1.7.1", "uvloop<0.22", *RUNTIME),
        "mlserver",
        env={"PYTHONPATH": str(HERE / "peers")},
        files={
            "settings.json": json.dumps(_MLSERVER_SETTINGS),
            "model-settings.json": json.dumps(
                {"name": "m", "implementation": "mlserver_model.Model"}
            ),
        },
    ),
    Contender(
        "Triton",
        _TRITON,
        ("nvidia-pytriton==0.7.0", *RUNTIME),
        "pytriton",
        files=_TRITON_FILES,
        heavy=True,
    ),
    Contender(
        "Triton binary",
        _TRITON,
        ("nvidia-pytriton==0.7.0", *RUNTIME),
        "pytriton",
        binary=True,
        files=_TRITON_FILES,
    ),
    Contender(
        "KServe",
        ("{python}", str(HERE / "peers/kserve_app.py")),
        ("kserve", *RUNTIME),
        "kserve",
        main=False,
    ),
    Contender(
        "BentoML",
        (
            *("{bin}/bentoml", "serve", "--working-dir", str(HERE / "peers"), "bentoml_app:Served"),
            *("--host", "127.0.0.1", "--port", "{port}"),
        ),
        ("bentoml", *RUNTIME),
        "bentoml",
        main=False,
    ),
    Contender(
        "Ray Serve",
        ("{python}", str(HERE / "peers/ray_app.py")),
        ("ray[serve]", *RUNTIME),
        "ray",
        main=False,
    ),
)


def environment(contender: Contender, model: Path) -> dict[str, str]:
    """What its process gets."""
    base = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    library = str(Path(sys.base_prefix) / "lib")
    return {
        **base,
        "MODEL": str(model),
        "OMP_NUM_THREADS": "1",
        # The stub of Triton's Python backend loads the interpreter's own library.
        "LD_LIBRARY_PATH": library,
        **contender.env,
    }
