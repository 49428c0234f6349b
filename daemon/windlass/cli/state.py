"""Which state folder a command means: the one that is said, the one that is here, the daemon's."""

from __future__ import annotations

import os
from pathlib import Path

from windlass.cli.failure import Failure
from windlass.cli.options import SERVER
from windlass.cli.settings import settings_from
from windlass.cli.terminal import note
from windlass.settings import Settings


def state_settings(state: Path | None, *, new: bool = False) -> Settings:
    """The settings with the state folder that is meant.

    Where none is said and none is here, it is the one of the daemon that answers. Where none does
    either, one that is yet to be made will do if ``new``. Else Failure is raised: what was written
    there, nobody would ever read.
    """
    settings = settings_from(state=state)
    if "state" in settings.model_fields_set or settings.state.is_dir():
        return settings
    server = os.environ.get("WINDLASS_SERVER", SERVER)
    found = _state_of(server)
    if found is None:
        if new:
            return settings
        raise Failure(
            f"there is no state folder {settings.state} here, and no daemon answers at {server}",
            "go where windlass up was started, or say its --state (a new one will do)",
        )
    if not found.is_dir():
        raise Failure(
            f"the daemon at {server} keeps its state in {found}, which is not on this machine",
            "run the command there, or say --state",
        )
    note(f"state folder: {found}, of the daemon at {server}")
    return settings.model_copy(update={"state": found})


def _state_of(server: str) -> Path | None:
    from windlass.api.views import Facts
    from windlass.cli.client import Client

    try:
        with Client(server) as client:
            return Path(client.get("/api/v1/doctor", Facts).state)
    except Failure:
        return None
