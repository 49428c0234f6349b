"""Where the broker is and how to get in; secrets are read at the moment of connecting.

For every process that speaks AMQP: the daemon, the command line and the serving process, which gets
it by its environment. Nothing here ever shows a password.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, quote, urlsplit

URL_VARIABLE = "WINDLASS_AMQP_URL"
PASSWORD_VARIABLE = "WINDLASS_AMQP_PASSWORD"
CA_VARIABLE = "WINDLASS_AMQP_CA"
HEARTBEAT = 15
"""Seconds between two heartbeats; the library gives a connection up after three missed ones."""


class AddressError(OSError):
    """The broker cannot be addressed. The message says what to set, and shows no secret."""


@dataclass(frozen=True)
class Address:
    """A broker, as it was configured."""

    reference: str = field(repr=False)
    """``amqp://USER@HOST/VHOST`` or ``amqps://...``; or ``env:NAME``, ``file:PATH`` for that."""
    password: str = field(default="", repr=False)
    """``env:NAME`` or ``file:PATH``; empty when the URL holds it."""
    ca: Path | None = None
    """PEM file of the authority that signs the broker's certificate; None: the system's."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Address | None:
        """What ``WINDLASS_AMQP_URL`` and its companions say; None when it is not set."""
        reference = environment.get(URL_VARIABLE, "")
        if not reference:
            return None
        ca = environment.get(CA_VARIABLE, "")
        return cls(reference, environment.get(PASSWORD_VARIABLE, ""), Path(ca) if ca else None)

    def url(self) -> str:
        """The whole URL, with the password: for connecting only. Raises AddressError."""
        url = self._plain()
        password = quote(_read(self.password), safe="") if self.password else url.password
        user = f"{url.username or ''}:{password}@" if password else f"{url.username}@"
        query = f"{url.query}&" if url.query else ""
        place = f"{user if url.username else ''}{_place(url)}{url.path}"
        return f"{url.scheme}://{place}?{query}heartbeat={HEARTBEAT}"

    def context(self) -> ssl.SSLContext | None:
        """What to check the broker's certificate with; None in the clear. Raises AddressError."""
        if self._plain().scheme != "amqps":
            return None
        try:
            return ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise AddressError(
                f"{self.ca} cannot be read as certificates ({error}); let {CA_VARIABLE} name the"
                " PEM file of the authority that signs the broker's certificate"
            ) from None

    def __str__(self) -> str:
        """Without the password, for people."""
        try:
            url = self._plain()
        except AddressError:
            return self.reference if self.reference.startswith(("env:", "file:")) else "the broker"
        user = f"{url.username}@" if url.username else ""
        return f"{url.scheme}://{user}{_place(url)}{url.path}"

    def _plain(self) -> SplitResult:
        text = _read(self.reference)
        try:
            url = urlsplit(text)
            known = url.scheme in ("amqp", "amqps") and bool(url.hostname) and url.port != 0
        except ValueError:
            known, url = False, urlsplit("")
        if not known:
            raise AddressError(
                f"{URL_VARIABLE} is no address of a broker; write amqp://USER@HOST:5672/VHOST,"
                f" or amqps:// for TLS, with the password in {PASSWORD_VARIABLE}"
            )
        return url


def _place(url: SplitResult) -> str:
    """Host and port as they were written."""
    return url.netloc.rpartition("@")[2]


def _read(reference: str) -> str:
    """What a reference stands for. Raises AddressError that names it, never its content."""
    scheme, _, rest = reference.partition(":")
    if scheme == "env":
        if rest not in os.environ:
            raise AddressError(f"{reference} is not set in the environment; set it and restart")
        return os.environ[rest]
    if scheme == "file":
        try:
            return Path(rest).read_text().rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise AddressError(
                f"{reference} cannot be read ({type(error).__name__}); put the secret there"
            ) from None
    return reference
