"""What a bench measures Windlass beside: installed in a venv of its own, by the lock's versions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def python_with(*packages: str) -> Path:
    """The Python of a venv with ``packages``; made when it is not there.

    In ``.bench``, or in the folder ``BENCH_VENVS``.
    """
    folder = Path(os.environ.get("BENCH_VENVS", ROOT / ".bench")) / "-".join(packages)
    python = folder / "bin" / "python"
    if not (folder / "whole").exists():
        print(f"installing {' and '.join(packages)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        lock = ["--require-hashes", "--only-binary", ":all:", "--no-deps", "-r"]
        chosen = folder / "requirements.txt"
        chosen.write_text(_locked(packages, ROOT / "requirements" / "peers.txt"))
        subprocess.run([str(python), "-m", "pip", "install", "-q", *lock, str(chosen)], check=True)
        (folder / "whole").touch()
    return python


def _locked(packages: tuple[str, ...], lock: Path) -> str:
    """The lines of the lock about the packages and all that came with them."""
    blocks: dict[str, str] = {}
    name = ""
    for line in lock.read_text().splitlines():
        if line and line[0] not in " #":
            name = line.partition("==")[0]
            blocks[name] = ""
        if name:
            blocks[name] += f"{line}\n"
    needed = list(packages)
    for each in needed:
        via = f"via {each}"
        needed += [
            other
            for other, text in blocks.items()
            if other not in needed and any(_names(line, each, via) for line in text.splitlines())
        ]
    return "".join(blocks[each] for each in needed)


def _names(line: str, name: str, via: str) -> bool:
    words = line.strip().removeprefix("#").strip()
    return words in (name, via)
