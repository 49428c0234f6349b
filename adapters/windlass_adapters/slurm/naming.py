"""Names by which a run is known on the cluster: hop 7, pure.

A job id is no identity: ids come back after a crash of the controller. What identifies a run is its
token, in the job's name and in the name of its folder.
"""

from __future__ import annotations

import base64
import hashlib
from typing import NamedTuple

from windlass_adapters.base import Owner

PREFIX = "wl-"
"""Every job of ours has a name that begins so."""


class Place(NamedTuple):
    """Where a run lies below ``remoteRoot``: ``jobs/OWNER/TOKEN``."""

    owner: str
    token: str

    @property
    def job_name(self) -> str:
        """The name of its job, unless it went into the array of others."""
        return f"{PREFIX}{self.token}"


def owner_tag(target: str, owner: Owner) -> str:
    """The folder of everything that an object ever ran on a target."""
    return _word(16, owner.install, target, owner.uid)


def place_of(target: str, owner: Owner, name: str) -> Place:
    """The place of a run by its name, which ends in the number of its attempt."""
    return Place(owner_tag(target, owner), _word(26, owner.install, target, owner.uid, name))


def earlier_attempts(name: str) -> tuple[str, ...]:
    """Names of the attempts before this one."""
    stem, _, number = name.rpartition("-a")
    return tuple(f"{stem}-a{n}" for n in range(1, int(number))) if number.isdigit() else ()


def _word(length: int, *parts: str) -> str:
    hashed = hashlib.sha256("\0".join(parts).encode()).digest()
    enough = hashed[: -(-length * 5 // 8)]  # encoding is slow, and the rest would be cut off
    return base64.b32encode(enough).decode().lower()[:length]
