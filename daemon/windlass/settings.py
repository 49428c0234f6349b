"""Settings of one daemon: from the environment (``WINDLASS_*``), overridden by flags of ``up``."""

from __future__ import annotations

import socket
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from windlass.bus.address import Address


class Settings(BaseSettings):
    """What one daemon needs to know before it starts. Nothing that a spec can say."""

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
    name: str = Field(default_factory=socket.gethostname, min_length=1, max_length=200)
    """This daemon's name among those that share a database; each has another."""
    database_url: SecretStr = SecretStr("")
    """``postgresql://USER@HOST/DATABASE`` of a store that several daemons share, or ``env:NAME`` or
    ``file:/path`` of it; empty for the embedded store in the state folder."""
    database_password: SecretStr = SecretStr("")
    """Its password: ``env:NAME`` or ``file:/path``. One inside the URL serves as well."""
    lease: float = Field(default=30.0, ge=0.5, le=3600)
    """Seconds after a daemon's last word until others take over what it works on."""
    history: int = Field(default=20, ge=0, le=10_000)
    """How many earlier runs of a Job stay, with their logs, that does not say ``history``."""
    artifacts: Path | None = None
    """The folder of artifacts; by default in the state folder. Daemons that share a database need
    one folder that all of them reach."""
    workers: int = Field(default=32, ge=1, le=1024)
    """How many objects are worked on at once, over all targets."""
    stop_grace: float = Field(default=30.0, ge=0)
    """Seconds that passes under way get at a stop."""
    amqp_url: SecretStr = SecretStr("")
    """The broker: ``amqp://USER@HOST/VHOST``, ``amqps://`` for TLS, or ``env:`` or ``file:`` where
    that stands. Empty: no broker."""
    amqp_password: SecretStr = SecretStr("")
    """Where its password is: ``env:NAME`` or ``file:PATH``. Empty: in the URL."""
    amqp_ca: Path | None = None
    """PEM file of the authority that signs the broker's certificate; without it, the system's."""
    amqp_publishers: Path | None = None
    """File that says who may publish specs; with it, unsigned messages are refused."""

    @property
    def amqp(self) -> Address | None:
        """Where the broker is, if there is one."""
        url = self.amqp_url.get_secret_value()
        return Address(url, self.amqp_password.get_secret_value(), self.amqp_ca) if url else None
