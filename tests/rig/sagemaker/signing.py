"""Who asks: AWS signature version 4, computed again from what arrived."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from rig.sagemaker.refusals import Refusal

_HEADER = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, ?"
    r"SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})"
)


@dataclass(frozen=True)
class Credentials:
    """Keys that the double knows, and whose they are."""

    access_key: str
    secret_key: str
    principal: str
    """The ARN that calls with them."""
    token: str | None = None


@dataclass(frozen=True)
class Signed:
    """A request as far as its signature is concerned."""

    method: str
    target: str
    """Path and query as they came over the wire."""
    headers: Mapping[str, str]
    """By name in lower case."""
    body: bytes


@dataclass(frozen=True)
class Caller:
    """Who asks which service where."""

    credentials: Credentials
    region: str
    service: str
    """The name in the signature: ``sagemaker``, ``application-autoscaling``, ``s3``."""


def verify(request: Signed, known: Mapping[str, Credentials]) -> Caller:
    """Who signed a request. Raises Refusal for nobody, a stranger and a wrong signature."""
    given = request.headers.get("authorization", "")
    parts = _HEADER.match(given)
    if parts is None:
        raise Refusal("MissingAuthenticationTokenException", "Missing Authentication Token", 403)
    access_key, date, region, service, names, signature = parts.groups()
    credentials = known.get(access_key)
    if credentials is None:
        raise Refusal(
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
            rule="auth.unknown",
        )
    if credentials.token != request.headers.get("x-amz-security-token"):
        raise Refusal(
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
            rule="auth.token",
        )
    scope = f"{date}/{region}/{service}/aws4_request"
    stamp = request.headers.get("x-amz-date", "")
    canonical = hashlib.sha256(_canonical(request, names, service).encode()).hexdigest()
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, canonical])
    key = f"AWS4{credentials.secret_key}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    if hmac.new(key, text.encode(), hashlib.sha256).hexdigest() != signature:
        raise Refusal(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided. "
            "Check your AWS Secret Access Key and signing method. "
            "Consult the service documentation for details.",
            403,
            rule="auth.signature",
        )
    return Caller(credentials, region, service)


def _canonical(request: Signed, names: str, service: str) -> str:
    split = urlsplit(request.target)
    # All but S3 encode the path twice.
    path = split.path or "/"
    path = quote(unquote(path), safe="/-_.~") if service == "s3" else quote(path, safe="/-_.~")
    query = "&".join(sorted(part if "=" in part else f"{part}=" for part in _parts(split.query)))
    headers = "".join(f"{n}:{' '.join(request.headers[n].split())}\n" for n in names.split(";"))
    body = request.headers.get("x-amz-content-sha256") or hashlib.sha256(request.body).hexdigest()
    return "\n".join([request.method, path, query, headers, names, body])


def _parts(query: str) -> list[str]:
    return [part for part in query.split("&") if part]
