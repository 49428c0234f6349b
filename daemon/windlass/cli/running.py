"""``windlass up``: turn this process into a daemon."""

from __future__ import annotations

from pathlib import Path

from windlass.app import StartError, run
from windlass.cli.failure import Failure, split_hint
from windlass.cli.settings import settings_from


def up(path: Path | None, worktree: bool, flags: dict[str, Path | str | int | None]) -> int:
    """Run the daemon until it is stopped; its exit code. Raises Failure."""
    settings = settings_from(**flags)
    if path is None and settings.amqp is None:
        raise Failure(
            "nothing to follow: neither a folder with specs nor a broker",
            "windlass up PATH, or set WINDLASS_AMQP_URL",
        )
    if path is not None and not path.exists():
        raise Failure(
            f"there is no {path}", "give a folder with specs, for example specs/quickstart"
        )
    try:
        return run(path, worktree, settings)
    except StartError as error:
        raise Failure(*split_hint(str(error))) from error
