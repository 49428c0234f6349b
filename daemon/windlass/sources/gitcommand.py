"""The ``git`` command, asked so that it runs nothing but itself: no hook, no pager (hop 1)."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from windlass.sources.base import SourceUnavailableError

TIMEOUT = 20.0
"""Seconds that one command may take."""

_SAFE = (
    "--no-pager",
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.fsmonitor=false",
    "-c", "core.quotePath=false",
    "-c", "core.pager=cat",
    "-c", "protocol.allow=never",
)  # fmt: skip


class GitError(SourceUnavailableError):
    """git said no. ``said`` holds its own words."""

    def __init__(self, message: str, said: str = "") -> None:
        super().__init__(message)
        self.said = said


def environment() -> Mapping[str, str]:
    """Our environment without the variables that point git elsewhere; English messages."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM")
    }
    return kept | {
        "LC_ALL": "C",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_LITERAL_PATHSPECS": "1",
    }


def command(folder: Path, arguments: Sequence[str]) -> list[str]:
    """The whole command line of git at work in a folder."""
    return ["git", "-C", str(folder), *_SAFE, *arguments]


async def run_git(folder: Path, *arguments: str, asked: bytes | None = None) -> bytes:
    """What git prints; ``asked`` is what it is told on its input. Raises GitError."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command(folder, arguments),
            stdin=subprocess.DEVNULL if asked is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
    except FileNotFoundError as error:
        raise GitError("git is not installed; install git, or start with --worktree") from error
    except OSError as error:
        raise GitError(f"git cannot be started ({error.strerror}); mend that") from error
    try:
        async with asyncio.timeout(TIMEOUT):
            out, err = await process.communicate(asked)
    except TimeoutError as error:
        raise GitError(
            f"git {arguments[0]} gave no answer in {TIMEOUT:.0f} s in {folder}; look at its disk"
        ) from error
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        raise explain_git(folder, arguments[0], err.decode(errors="replace"))
    return out


def explain_git(folder: Path, verb: str, said: str) -> GitError:
    """git's refusal, in words that say what to do."""
    if "dubious ownership" in said:
        found = re.search(r"repository at '([^']+)'", said)
        where = found.group(1) if found else str(folder)
        return GitError(
            f"git does not trust {where}, which another user owns; run"
            f" git config --global --add safe.directory {where} as the user of the daemon",
            said,
        )
    if "cannot change to" in said:
        return GitError(
            f"{folder} does not exist; put the repository back and Windlass goes on."
            " Nothing is removed meanwhile",
            said,
        )
    if "not a git repository" in said:
        return GitError(
            f"{folder} is no git repository any more; put it back and Windlass goes on."
            " Nothing is removed meanwhile",
            said,
        )
    first = next((line for line in said.splitlines() if line.strip()), "no message")
    return GitError(f"git {verb} failed in {folder}: {first}; try git fsck", said)
