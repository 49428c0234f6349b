"""API keys of served models: made, rotated and revoked here; only their hashes are kept.

Outside the eight hops. A file in the state folder, which serving processes read; it needs no
daemon. A key is shown once, when it is made.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

KEY_FILE = "keys.json"


class UnknownKeyError(Exception):
    """There is no key of that name. The message says which there are."""


@dataclass(frozen=True)
class StoredKey:
    """One key, without the key."""

    id: str
    name: str
    """Several have one name only while one replaces the other."""
    hash: str
    namespace: str
    deployment: str | None
    """None: every Deployment of the namespace."""
    rate: float | None
    """Requests a second; None: as many as it likes."""
    created: float
    """Seconds since 1970."""
    expires: float | None
    """Seconds since 1970; None: never."""


class KeyFile:
    """The keys of one installation."""

    def __init__(self, state: Path) -> None:
        self._path = state / KEY_FILE

    def all(self) -> list[StoredKey]:
        """Every key that is not expired, by name."""
        now = time.time()
        live = [key for key in self._read() if key.expires is None or key.expires > now]
        return sorted(live, key=lambda key: (key.name, key.created))

    def create(self, name: str, namespace: str, deployment: str | None, rate: float | None) -> str:
        """A new key, in words that are told once. Raises ValueError if the name is taken."""
        if any(key.name == name for key in self.all()):
            raise ValueError(f"there is a key {name} already; rotate it, or use another name")
        text, key = _made(name, namespace, deployment, rate)
        self._change(lambda keys: [*keys, key])
        return text

    def rotate(self, name: str, overlap: float) -> str:
        """Another key of that name; the old one holds for ``overlap`` seconds more."""
        old = self._named(name)[-1]
        text, key = _made(name, old.namespace, old.deployment, old.rate)
        end = time.time() + overlap

        def changed(keys: list[StoredKey]) -> list[StoredKey]:
            kept = [
                replace(each, expires=min(each.expires or end, end)) if each.name == name else each
                for each in keys
            ]
            return [*kept, key]

        self._change(changed)
        return text

    def revoke(self, name: str) -> None:
        """No key of that name holds any more."""
        self._named(name)
        self._change(lambda keys: [key for key in keys if key.name != name])

    def _named(self, name: str) -> list[StoredKey]:
        found = [key for key in self.all() if key.name == name]
        if not found:
            there = ", ".join(sorted({key.name for key in self.all()})) or "none"
            raise UnknownKeyError(f"there is no key {name}; there are: {there}")
        return found

    def _read(self) -> list[StoredKey]:
        try:
            document = json.loads(self._path.read_text())
        except FileNotFoundError:
            return []
        return [StoredKey(**entry) for entry in document["keys"]]

    def _change(self, change: Callable[[list[StoredKey]], list[StoredKey]]) -> None:
        """Whole or not at all, for whoever reads meanwhile; one writer at a time."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self._path.with_suffix(".lock")):
            now = time.time()
            keys = [k for k in change(self._read()) if k.expires is None or k.expires > now]
            draft = self._path.with_suffix(".draft")
            text = json.dumps({"keys": [asdict(key) for key in keys]}, indent=1)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _made(
    name: str, namespace: str, deployment: str | None, rate: float | None
) -> tuple[str, StoredKey]:
    id_ = secrets.token_hex(6)
    text = f"wl_{id_}_{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(text.encode()).hexdigest()
    return text, StoredKey(id_, name, digest, namespace, deployment, rate, time.time(), None)
