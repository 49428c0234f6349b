"""Which program the tests run containers with: the real one if there is one, else the double."""

from __future__ import annotations

import shutil
from pathlib import Path

NAMES = ("apptainer", "singularity")
# The user of the cluster may not read the interpreter that runs the tests.
_START = """#!/usr/bin/python3 -sE
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, {code!r})
from rig.apptainer.program import start
start({cache!r})
"""


def real() -> Path | None:
    """The folder of a real Apptainer or Singularity, if the machine has one."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    return Path(found).parent if found else None


def double(folder: Path) -> Path:
    """Install the double under both names; the folder to put on PATH. Any user may run it."""
    code, cache, programs = folder / "code", folder / "cache", folder / "bin"
    shutil.copytree(
        Path(__file__).parent,
        code / "rig" / "apptainer",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    cache.mkdir()
    cache.chmod(0o1777)
    programs.mkdir()
    for name in NAMES:
        program = programs / name
        program.write_text(_START.format(code=str(code), cache=str(cache)))
        program.chmod(0o755)
    return programs
