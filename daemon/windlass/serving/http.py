"""HTTP/1.1 in words: limits, heads, answers, and how bodies are packed.

Outside the eight hops. ``connection`` speaks to sockets with them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

JSON = "application/json"
BINARY = "application/octet-stream"
JSON_LENGTH = "inference-header-content-length"
_MESSAGES = {status.value: status.phrase for status in HTTPStatus} | {499: "Client Closed Request"}
_STATUS_LINES = {
    code: f"HTTP/1.1 {code} {phrase}\r\n".encode() for code, phrase in _MESSAGES.items()
}
_OK_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_OK_BINARY = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n"
    b"inference-header-content-length: %d\r\ncontent-length: %d\r\n\r\n%b"
)
_COMPRESSIBLE = range(4096, 1 << 20)
"""Bytes of answers that are compressed for clients that take it; more would hold up the loop."""


@dataclass(frozen=True)
class Limits:
    """What one process takes on."""

    body: int = 64 << 20
    """Bytes of one request body, also once it is unpacked."""
    head: int = 64 << 10
    """Bytes of a request line and its headers."""
    under_way: int = 512
    """Inference requests that wait or run, over all models."""
    pipelined: int = 64
    """Requests of one connection that wait for their answers; more are not read."""
    head_time: float = 10.0
    """Seconds that a head may take to come, from its first byte."""
    body_idle: float = 30.0
    """Seconds that a client may leave between two pieces of a body, or of reading an answer."""
    body_total: float = 900.0
    """Seconds that a body may take to come in all."""
    keep_alive: float = 75.0
    """Seconds that an idle connection is kept."""
    retry_after: int = 1
    """Seconds that a client is told to wait."""
    logged: float = 0.0
    """Share of the inference requests that the log tells of."""


@dataclass(slots=True)
class Reply:
    """An answer, before HTTP has it."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] | None = None
    json_length: int | None = None
    """Bytes of JSON before binary tensors; the type is then ``BINARY``."""


def json_reply(status: int, document: object, **headers: str) -> Reply:
    """A JSON answer; ``retry_after="1"`` becomes the header ``retry-after``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(document).encode(), JSON, named or None)


def refusal(status: int, message: str, **headers: str) -> Reply:
    """An error in the protocol's words."""
    return json_reply(status, {"error": message}, **headers)


class Head:
    """A request line and its headers."""

    __slots__ = (
        "chunked",
        "expects",
        "headers",
        "keep_alive",
        "length",
        "method",
        "minor",
        "path",
        "plain",
        "query",
        "raw",
        "route",
        "total",
    )

    def __init__(self) -> None:
        self.method = ""
        self.path = ""
        self.query = ""
        self.headers: dict[str, str] = {}
        """Names in lower case; of a repeated one the values are joined by commas."""
        self.length: int | None = None
        self.chunked = False
        self.expects = False
        self.keep_alive = True
        self.minor = "1.1"
        self.plain = True
        """Whether an answer needs nothing but status, type and length."""
        self.raw = b""
        """The bytes, if all came in one piece: the next request may have the same."""
        self.total = 0
        """Bytes of such a request with its body."""
        self.route: object = None
        """What the routes make of it, kept as long as the head."""


def encoded(reply: Reply, head: Head, closing: bool) -> bytes:
    """The answer as it goes over the wire; ``closing``: it is the connection's last."""
    body = reply.body
    if head.plain and not closing and reply.status == 200 and reply.headers is None:
        if reply.json_length is not None:
            return _OK_BINARY % (reply.json_length, len(body), body)
        if reply.content_type is JSON:
            return _OK_JSON % (len(body), body)
    lines = [f"content-type: {reply.content_type}"] if body or reply.content_type != JSON else []
    if reply.json_length is not None:
        lines.append(f"{JSON_LENGTH}: {reply.json_length}")
    for name, value in (reply.headers or {}).items():
        lines.append(f"{name}: {value}")
    if len(body) in _COMPRESSIBLE and (packing := _packing(head)):
        body = _pack(body, packing)
        lines.append(f"content-encoding: {packing}")
    lines.append(f"content-length: {len(body)}")
    if closing or not head.keep_alive:
        lines.append("connection: close")
    elif head.minor == "1.0":
        lines.append("connection: keep-alive")
    text = "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n"
    return _STATUS_LINES[reply.status] + text + (b"" if head.method == "HEAD" else body)


def _packing(head: Head) -> str | None:
    offered = head.headers.get("accept-encoding", "")
    wanted = {item.partition(";")[0].strip() for item in offered.split(",") if "q=0" not in item}
    return next((name for name in ("gzip", "deflate") if name in wanted), None)


def _pack(body: bytes, packing: str) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31 if packing == "gzip" else 15)
    return packer.compress(body) + packer.flush()


def unpack(body: bytes, packing: str, limit: int) -> bytes | Reply:
    """Undo ``Content-Encoding``; a refusal for what cannot be undone or grows over the limit."""
    if packing in ("", "identity"):
        return body
    if packing not in ("gzip", "x-gzip", "deflate"):
        return refusal(415, f"Content-Encoding {packing} is not offered; use gzip, deflate or none")
    unpacker = zlib.decompressobj(15 if packing == "deflate" else 31)
    try:
        plain = unpacker.decompress(body, limit)
    except zlib.error as error:
        return refusal(400, f"the body is not {packing}, as Content-Encoding says: {error}")
    if unpacker.unconsumed_tail:
        return too_large(limit)
    if not unpacker.eof or unpacker.unused_data:
        return refusal(400, f"the body is not one whole piece of {packing}")
    return plain


def too_large(limit: int) -> Reply:
    """The refusal of a body over the limit."""
    return refusal(413, f"the body is larger than {limit} bytes; send fewer rows in one request")
