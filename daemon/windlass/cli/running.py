"""``windlass up``: turn this process into a daemon."""

from __future__ import annotations

from pathlib import Path

from windlass.app import StartError, run
from windlass.cli.failure import Failure, split_hint
from windlass.cli.settings import settings_from


def up(path: Path, worktree: bool, flags: dict[str, Path | str | int | None]) -> int:
    """Run the daemon until it is stopped; its exit code. Raises Failure."""
    if not path.exists():
        raise Failure(
            f"there is no {path}", "give a folder with specs, for example specs/quickstart"
        )
    try:
        return run(path, worktree, settings_from(**flags))
    except StartError as error:
        raise Failure(*split_hint(str(error))) from error
