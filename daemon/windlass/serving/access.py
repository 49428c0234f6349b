"""Who may ask: API keys, of which only hashes are known here, and how often each may ask.

Outside the eight hops. ``windlass keys`` writes the file; it is looked at twice a second, so that a
key that is revoked is refused within one. A key has 256 random bits: its plain hash cannot be
guessed back, and hashes are compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from windlass.serving.fleet.rates import Rates
from windlass.serving.http import Reply, refusal

LOOK = 0.5
"""Seconds between two looks at the file."""
_BEARER = "bearer "

log = structlog.get_logger()


@dataclass
class Key:
    """One key, as the file has it, and what it has used of its rate."""

    name: str
    hash: str
    """sha256 of the whole key, in hex."""
    namespace: str
    deployment: str | None
    """None: every Deployment of the namespace."""
    rate: float | None
    """Requests a second; None: as many as it likes."""
    expires: float | None
    """Seconds since 1970; None: never."""
    _tokens: float = field(default=0.0, init=False)
    _filled: float = field(default=-math.inf, init=False)

    def take(self, now: float) -> float:
        """Count one request; seconds until there may be another, 0 when this one may go."""
        if self.rate is None:
            return 0.0
        burst = max(self.rate, 1.0)
        self._tokens = min(burst, self._tokens + max(now - self._filled, 0.0) * self.rate)
        self._filled = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0.0
        return (1.0 - self._tokens) / self.rate


class Keys:
    """All keys of the installation, by id."""

    def __init__(self, file: Path | None, rates: Path | None = None) -> None:
        """``rates`` is a folder in which several processes count together."""
        self._file = file
        self._rates = Rates(rates) if rates is not None else None
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, Key] = {}

    def refresh(self) -> None:
        """Read the file again if it has changed. One that cannot be read lets nobody in."""
        if self._file is None:
            return
        try:
            status = self._file.stat()
            seen = status.st_mtime_ns, status.st_size, status.st_ino
            if seen == self._seen:
                return
            self._seen = seen  # also when it is damaged: nothing but a change can mend that
            old, self._keys = self._keys, _read(self._file)
            for name, key in self._keys.items():
                if name in old and old[name].hash == key.hash and old[name].rate == key.rate:
                    self._keys[name] = old[name]
                    old[name].expires = key.expires
            if self._rates is not None:
                self._rates.keep({key.hash for key in self._keys.values()})
        except FileNotFoundError:
            self._keys, self._seen = {}, None
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._keys = {}
            if isinstance(error, OSError):
                self._seen = None
            log.error("keys", file=str(self._file), message=f"cannot be read: {error}")  # noqa: TRY400 - the message says it all

    def check(self, credential: str | None, object_key: str) -> str | Reply:
        """The name of the key that may ask this Deployment, or the refusal.

        ``object_key`` is ``Deployment/NAMESPACE/NAME``.
        """
        if not credential:
            return _unauthorised("a key is needed; send it as Authorization: Bearer KEY")
        key = self._known(credential)
        if key is None:
            self.refresh()  # whoever has just made a key uses it at once
            key = self._known(credential)
        if key is None:
            return _unauthorised("this key is unknown, revoked or expired; ask for another")
        _, namespace, name = object_key.split("/", 2)
        if key.namespace != namespace or key.deployment not in (None, name):
            return refusal(403, f"the key {key.name} is not for this Deployment; ask for another")
        now = time.monotonic()
        if key.rate is not None and self._rates is not None:
            wait = self._rates.take(key.hash, key.rate, now)
        else:
            wait = key.take(now)
        if wait > 0.0:
            text = f"the key {key.name} may ask {key.rate:g} times a second; come again later"
            return refusal(429, text, retry_after=str(max(1, math.ceil(wait))))
        return key.name

    def _known(self, credential: str) -> Key | None:
        parts = credential.split("_", 2)
        key = self._keys.get(parts[1]) if len(parts) == 3 and parts[0] == "wl" else None
        given = hashlib.sha256(credential.encode("utf-8", "replace")).hexdigest()
        # Compared also when there is no such key: time must not tell.
        right = hmac.compare_digest(given, key.hash if key is not None else "0" * 64)
        if key is None or not right:
            return None
        return key if key.expires is None or time.time() < key.expires else None


def credential_of(headers: Mapping[str, str]) -> str | None:
    """The key that a request carries; names of headers in lower case."""
    text = headers.get("authorization", "")
    if text[: len(_BEARER)].lower() == _BEARER:
        return text[len(_BEARER) :].strip()
    return headers.get("x-api-key")


def _unauthorised(message: str) -> Reply:
    return refusal(401, message, www_authenticate="Bearer")


def _read(file: Path) -> dict[str, Key]:
    found = {}
    for entry in json.loads(file.read_text())["keys"]:
        found[str(entry["id"])] = Key(
            str(entry["name"]),
            str(entry["hash"]),
            str(entry["namespace"]),
            entry["deployment"],
            entry["rate"],
            entry["expires"],
        )
    return found
