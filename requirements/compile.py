"""Compiles the one module in C when Windlass is installed, if it can be.

Called by hatchling, for a wheel as for an editable install. Without a compiler or Python's headers
nothing is compiled, and Windlass is the same but slower (docs/serving.md). ``WINDLASS_COMPILE=no``
leaves it out on purpose; ``WINDLASS_COMPILE=yes`` fails the install where it cannot be compiled.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("daemon/windlass/serving/_decimals.c")


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]  # of whichever builder
    """One shared library beside its source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before anything is packed."""
        asked = os.environ.get("WINDLASS_COMPILE", "")
        if self.target_name != "wheel" or asked == "no":
            return
        source = Path(self.root) / SOURCE
        target = source.with_name(source.stem + str(sysconfig.get_config_var("EXT_SUFFIX")))
        error = compiled(source, target)
        if error is None:
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
            build_data["artifacts"].append(f"/{target.relative_to(self.root).as_posix()}")
            return
        target.unlink(missing_ok=True)  # made from an older source
        if asked == "yes":
            raise RuntimeError(f"WINDLASS_COMPILE=yes, and {source} does not compile: {error}")
        self.app.display_warning(f"windlass: {SOURCE} is not compiled: {error}")


def compiled(source: Path, target: Path) -> str | None:
    """Compile it with what made this Python; what is wrong, if anything is."""
    made = target.with_name(f"{target.name}.{os.getpid()}")
    linker = os.environ.get("LDSHARED") or str(sysconfig.get_config_var("LDSHARED") or "cc -shared")
    include = f"-I{sysconfig.get_paths()['include']}"
    command = [*shlex.split(linker), "-O2", "-fPIC", include, str(source), "-o", str(made)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["the compiler failed"])[0]
        made.replace(target)  # a process that has mapped the old one keeps it
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        made.unlink(missing_ok=True)
    return None
