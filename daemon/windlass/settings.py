"""Settings of one daemon: from the environment (``WINDLASS_*``), overridden by flags of ``up``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What one daemon needs to know before it starts. No secrets; nothing that a spec can say."""

    model_config = SettingsConfigDict(
        env_prefix="WINDLASS_", frozen=True, extra="forbid", use_attribute_docstrings=True
    )

    state: Path = Path(".windlass")
    """The state folder: database, artifacts, job folders, the serving process's files."""
    api_host: str = "127.0.0.1"
    """Where the HTTP API listens."""
    api_port: int = Field(default=8700, ge=0, le=65535)
    """Its port; 0 takes a free one."""
    serving_port: int = Field(default=8701, ge=0, le=65535)
    """Port of the built-in Target ``local``'s serving process; 0 takes a free one."""
    workers: int = Field(default=32, ge=1, le=1024)
    """How many objects are worked on at once, over all targets."""
    stop_grace: float = Field(default=30.0, ge=0)
    """Seconds that passes under way get at a stop."""
