"""Names and tags in SageMaker: deterministic, within AWS's limits, and never without an owner.

A name is a readable part and a hash; the readable part is cut to fit and the hash never is. The
hash covers the owner too, so that two owners never share a config. The endpoint's name is the
user's own: clients depend on it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from windlass_adapters.base import Owner, TerminalError
from windlass_adapters.sagemaker.answers import Answer
from windlass_schemas import DEFAULT_NAMESPACE, Key, Reason, canonical_json

LIMIT = 63
"""Characters of most names; of a tuning job's: TUNING_LIMIT."""
TUNING_LIMIT = 32
PREFIX = "windlass:"
OWNER_TAG = f"{PREFIX}owner"
"""Whose it is: decides."""
INSTANCE_TAG = f"{PREFIX}instance"
"""Which installation: what the IAM policy looks at."""
REF_TAG = f"{PREFIX}ref"
"""``Kind/namespace/name``, for people and bills."""
HASH_TAG = f"{PREFIX}hash"
TRIED_TAG = f"{PREFIX}tried"
"""On an endpoint config: an update to it was sent, and when the endpoint had last changed then."""
BACK_TAG = f"{PREFIX}back"
"""On an endpoint config whose rollback failed too: the endpoint was told to go back, and when it
had last changed then."""
FLEET_TAG = f"{PREFIX}fleet"
"""On an endpoint: ``variant=type`` for each fleet, so that its cost is known without asking."""
LIMIT_TAG = f"{PREFIX}limit"
"""On a transform job, for which AWS has no limit: seconds that it may take."""
RELEASED_TAG = f"{PREFIX}released"
"""On a transform job, which AWS never forgets: ``yes`` when its Job has gone."""
TTL_TAG = f"{PREFIX}ttl"
IDLE_TAG = f"{PREFIX}idle"
"""On an endpoint: seconds that it may stay, or may be without requests."""


def slug(key: Key) -> str:
    """The readable part of a key's names."""
    text = key.name if key.namespace == DEFAULT_NAMESPACE else f"{key.namespace}-{key.name}"
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "x"


def short_hash(length: int, *parts: JsonValue | Mapping[str, JsonValue]) -> str:
    """So many characters of base32, which every name may hold."""
    raw = hashlib.sha256(canonical_json([_plain(p) for p in parts]).encode()).digest()
    return base64.b32encode(raw).decode().lower()[:length]


def _plain(value: JsonValue | Mapping[str, JsonValue]) -> JsonValue:
    return dict(value) if isinstance(value, Mapping) else value


def hashed(readable: str, hash_: str, limit: int = LIMIT) -> str:
    """``readable-hash`` within the limit: only the readable part is cut."""
    room = limit - len(hash_) - 1
    cut = readable[:room].strip("-")
    return f"{cut}-{hash_}" if cut else hash_


def endpoint_name(key: Key) -> str:
    """The endpoint of a Deployment that names none: what its clients see, so no hash in it."""
    name = slug(key)
    return name if len(name) <= LIMIT else hashed(name, short_hash(6, name))


@dataclass(frozen=True)
class Identity:
    """How this installation's things are told from all others."""

    install: str
    instance: str | None
    """The Target's ``instance``: with it, an object is known by its key, and a lost state folder
    costs nothing. Without it, by its uid."""

    @property
    def tag(self) -> str:
        """The value of the instance tag."""
        return self.instance or self.install

    def token(self, owner: Owner) -> str:
        """The value of the owner tag."""
        if self.instance is None:
            return owner.uid
        return short_hash(26, self.instance, str(owner.key))

    def tags(self, owner: Owner, more: Mapping[str, str]) -> dict[str, str]:
        """The tags of everything that is made for an owner."""
        own = {
            OWNER_TAG: self.token(owner),
            INSTANCE_TAG: self.tag,
            REF_TAG: str(owner.key),
        }
        return {**more, **own}

    def owner_uid(self, owner: Owner, tags: Mapping[str, str]) -> str | None:
        """The uid behind an owner tag, as the kernel knows it; None without a tag."""
        held = tags.get(OWNER_TAG)
        return owner.uid if held == self.token(owner) else held

    def owns(self, owner: Owner, tags: Mapping[str, str]) -> bool:
        """Whether the tags say that it is this owner's."""
        return tags.get(OWNER_TAG) == self.token(owner)


def conflict(what: str, tags: Mapping[str, str]) -> TerminalError:
    """The name is taken by something that is not this object's."""
    whose = tags.get(REF_TAG)
    by = f"belongs to {whose} of {tags.get(INSTANCE_TAG, '?')}" if whose else "carries no owner tag"
    return TerminalError(
        f"{what} is there already and {by}; use another name, or take it over with"
        " policy.adopt: true",
        reason=Reason.CONFLICT,
    )


def tag_list(tags: Mapping[str, str]) -> list[Answer]:
    """Tags as AWS takes them."""
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
