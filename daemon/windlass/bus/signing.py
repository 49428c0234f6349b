"""Signed spec messages: who says it, proven by a key, and in which namespaces that counts.

A signature is a JSON Web Token in the header ``windlass-signature``: ``iss`` is the CloudEvent's
source and ``sha256`` the digest of the whole body, so that nothing of it can be changed. Ids and
revisions keep a copy from doing anything twice. With a publishers' file, all others are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

import jwt
import yaml
from pydantic import Field, ValidationError

from windlass.sources.messages import Delivery, Trust, UntrustedError
from windlass_adapters.base import TerminalError
from windlass_adapters.secrets import resolve_secret
from windlass_schemas import Frozen, Key, Reason

Algorithm = Literal["HS256", "HS512", "EdDSA", "ES256", "RS256", "PS256"]
SHORTEST_SECRET = 32
"""Bytes of a shared secret."""


class PublishersError(Exception):
    """The publishers' file cannot be used. The message says why and what to do."""


class Publisher(Frozen):
    """Somebody who may declare things."""

    source: str = Field(min_length=1)
    """The ``source`` of its CloudEvents."""
    namespaces: tuple[str, ...] = Field(min_length=1)
    """Names or patterns: ``team-a``, ``team-a-*``, ``*``."""
    algorithm: Algorithm
    """HS256 and HS512: a shared secret. The others: a public key in PEM."""
    key: str = Field(pattern=r"^(env|file):.+", repr=False)
    """Where the secret or the public key is; read at each use, so that it can be exchanged."""


class _File(Frozen):
    publishers: tuple[Publisher, ...]


@dataclass(frozen=True)
class Publishers(Trust):
    """Everybody who may declare things. A source may stand here twice, with its next key."""

    known: Sequence[Publisher]

    @classmethod
    def read(cls, path: Path) -> Publishers:
        """The publishers' file. Raises PublishersError."""
        try:
            found = _File.model_validate(yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader))
        except (OSError, yaml.YAMLError) as error:
            raise PublishersError(
                f"the publishers' file {path} cannot be read ({error}); mend it, or unset"
                " WINDLASS_AMQP_PUBLISHERS"
            ) from error
        except ValidationError as error:
            fault = error.errors(include_input=False)[0]
            field = ".".join(str(part) for part in fault["loc"]) or "the file"
            raise PublishersError(
                f"{path}: {field}: {fault['msg']}; see Signed messages in docs/messages.md"
            ) from None
        return cls(found.publishers)

    def check_signature(self, delivery: Delivery, source: str) -> None:
        keys = [publisher for publisher in self.known if publisher.source == source]
        if not keys:
            raise UntrustedError(
                Reason.SOURCE_UNVERIFIED,
                f"no publisher {source!r} is known here; add it to the publishers' file",
            )
        if not delivery.signature:
            raise UntrustedError(
                Reason.SOURCE_UNVERIFIED,
                "the message is not signed, and unsigned messages are refused here; sign it:"
                " windlass publish with WINDLASS_PUBLISH_KEY set",
            )
        complaints = [_complaint(publisher, delivery, source) for publisher in keys]
        if all(complaints):
            raise UntrustedError(Reason.SOURCE_UNVERIFIED, complaints[0])

    def check_right(self, source: str, key: Key) -> None:
        allowed = [
            pattern
            for publisher in self.known
            if publisher.source == source
            for pattern in publisher.namespaces
        ]
        if not any(fnmatchcase(key.namespace, pattern) for pattern in allowed):
            raise UntrustedError(
                Reason.FORBIDDEN,
                f"{source} may not declare {key.short}: its namespaces are"
                f" {', '.join(allowed)}; grant {key.namespace!r} in the publishers' file",
            )


def _complaint(publisher: Publisher, delivery: Delivery, source: str) -> str:
    """Why a signature does not hold; empty when it does."""
    try:
        key = resolve_secret(publisher.key)
    except TerminalError as error:
        return str(error)
    try:
        claims = jwt.decode(
            delivery.signature,
            key,
            algorithms=[publisher.algorithm],
            issuer=source,
            options={"require": ["iss", "sha256"], "verify_iat": False, "verify_aud": False},
        )
    except (jwt.PyJWTError, ValueError) as error:
        return f"the signature does not hold ({error}); sign with the key of {source}"
    if claims["sha256"] != hashlib.sha256(delivery.body).hexdigest():
        return "the signature is of another message; sign the body as it is sent"
    return ""


@dataclass(frozen=True)
class Signer:
    """Signs what one source publishes."""

    source: str
    algorithm: Algorithm
    key: str
    """``env:NAME`` or ``file:PATH`` of the shared secret or the private key in PEM."""

    def sign(self, body: bytes) -> str:
        """The signature of a body. Raises PublishersError."""
        claims = {"iss": self.source, "sha256": hashlib.sha256(body).hexdigest()}
        try:
            secret = resolve_secret(self.key)
            if self.algorithm.startswith("HS") and len(secret) < SHORTEST_SECRET:
                raise PublishersError(
                    f"the secret {self.key} is too short; use {SHORTEST_SECRET} bytes or more"
                )
            return jwt.encode(claims, secret, algorithm=self.algorithm)
        except TerminalError as error:
            raise PublishersError(str(error)) from None
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise PublishersError(
                f"{self.key} is no key for {self.algorithm} ({error}); set WINDLASS_PUBLISH_KEY"
                " and WINDLASS_PUBLISH_ALGORITHM to ones that fit"
            ) from None
