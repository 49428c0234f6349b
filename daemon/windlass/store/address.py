"""Where the shared store is: a URL without its password, which is read only when it is needed."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit, urlunsplit

from windlass.store.base import StoreError
from windlass_adapters.base import AdapterError
from windlass_adapters.secrets import resolve_secret

SCHEMES = ("postgresql", "postgres")


@dataclass(frozen=True)
class Address:
    """``postgresql://user@host:port/database?sslmode=verify-full``, and where the password is."""

    url: str
    """Without a password: this may be shown."""
    _secret: str

    @classmethod
    def parse(cls, text: str, password: str = "") -> Address:
        """Read a URL. Either part may be ``env:NAME`` or ``file:/path``. Raises StoreError.

        Inside a URL, the slashes of ``file:/path`` are written ``%2F``.
        """
        parts = urlsplit(_resolved(text))
        try:
            named = parts.scheme in SCHEMES and parts.port is not False
        except ValueError:
            named = False
        if not named:
            raise StoreError(
                "the database's address is no PostgreSQL URL;"
                " write WINDLASS_DATABASE_URL=postgresql://USER@HOST/DATABASE"
            )
        account, at, place = parts.netloc.rpartition("@")
        user, _, found = account.partition(":")
        url = urlunsplit(parts._replace(netloc=f"{user}{at}{place}"))
        return cls(url, password or unquote(found))

    @property
    def password(self) -> str | None:
        """The password, read anew each time. Raises StoreError that names the reference only."""
        return _resolved(self._secret) or None

    def __repr__(self) -> str:
        return f"Address({self.url})"


def _resolved(text: str) -> str:
    try:
        return resolve_secret(text)
    except AdapterError as error:
        raise StoreError(str(error)) from None
