"""The program on the login node as one file: what ``hello`` brings there (hop 5).

A zip file, which is unpacked over there: from a folder Python keeps what it has compiled, and
compiling takes longer than most commands do. The same sources give the same bytes, so that its
digest says which version it is.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_PACKAGE = "windlass_adapters/slurm/remote"
START = "run.py"
"""The file in the program's folder that one runs."""
_START = b"""\
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from windlass_adapters.slurm.remote.__main__ import main

main()
"""
_EPOCH = (1980, 1, 1, 0, 0, 0)


class Program(NamedTuple):
    """A file that is shipped."""

    name: str
    """Holds its digest."""
    content: bytes


@cache
def remote_program() -> Program:
    """What runs on the login node."""
    sources = {
        f"{_PACKAGE}/{each.name}": each.read_bytes()
        for each in (files("windlass_adapters.slurm") / "remote").iterdir()
        if each.name.endswith(".py")
    }
    sources |= {
        f"{folder}/__init__.py": b"" for folder in ("windlass_adapters", "windlass_adapters/slurm")
    }
    sources[START] = _START
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(sources):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), sources[name], zipfile.ZIP_DEFLATED)
    return _named("remote", packed.getvalue())


@cache
def job_script() -> Program:
    """What Slurm runs for each run."""
    return _named("batch", (files("windlass_adapters.slurm") / "batch.sh").read_bytes(), ".sh")


def _named(name: str, content: bytes, suffix: str = "") -> Program:
    return Program(f"{name}-{hashlib.sha256(content).hexdigest()[:12]}{suffix}", content)
