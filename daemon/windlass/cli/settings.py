"""Settings as a command sees them: the environment, overridden by flags, explained when wrong."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from windlass.cli.failure import Failure
from windlass.settings import Settings


def settings_from(**flags: Path | str | int | None) -> Settings:
    """The settings, with the flags that were given. Raises Failure."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return Settings.model_validate(Settings().model_dump() | given) if given else Settings()
    except ValidationError as error:
        fault = error.errors()[0]
        name = ".".join(str(part) for part in fault["loc"])
        raise Failure(
            f"setting {name}: {fault['msg']}",
            f"mend --{name.replace('_', '-')} or WINDLASS_{name.upper()}",
        ) from error
