"""Runs the command line: in this process where that is enough, or as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
from typing import NamedTuple

from windlass.cli.root import run


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def _run(arguments: tuple[str, ...]) -> Ran:
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    err = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(arguments)
    written = out.buffer.getvalue()
    return Ran(code, written.decode(), err.getvalue())


async def windlass(*arguments: str) -> Ran:
    """Run a command here, in a thread, so that the daemon beside it can answer."""
    return await asyncio.to_thread(_run, arguments)


async def start(*arguments: str, columns: int = 200) -> asyncio.subprocess.Process:
    """Start a command as a process, its output in pipes. The caller ends it."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from windlass.cli import main; main()",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"COLUMNS": str(columns), "PYTHONUNBUFFERED": "1"},
    )
