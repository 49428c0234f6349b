"""The envelope of a spec message: a structured CloudEvent, strictly (hop 1)."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, cast

from pydantic import JsonValue

from windlass.sources.messagetree import DOCUMENT
from windlass_schemas import Key

PUT = "windlass.spec.put"
DELETE = "windlass.spec.delete"
MAX_MESSAGE = 4 << 20
"""Bytes in one message."""
MAX_FILES = 100
"""Files that travel in one message."""
MAX_TRAVELLING = 1 << 20
"""Bytes of all files in one message."""
MAX_ID = 256

_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_REVISION = re.compile(r"[1-9][0-9]{0,18}")


class EnvelopeError(Exception):
    """The envelope is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        """The attribute that is meant; empty for the message as a whole."""


@dataclass(frozen=True)
class Envelope:
    """What stands around the document."""

    deletes: bool
    id: str
    source: str
    revision: int
    subject: Key | None
    author: str
    document: bytes
    """YAML text; empty for a deletion."""
    has_lines: bool
    """Whether the publisher wrote it as text, so that a line says something."""
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Address:
    """Who says it: as much of an envelope as a refusal needs."""

    source: str
    id: str
    revision: int


def read_event(body: bytes) -> Mapping[str, JsonValue]:
    """The JSON of a message, strictly. Raises EnvelopeError."""
    if len(body) > MAX_MESSAGE:
        raise EnvelopeError(
            "",
            f"the message has {len(body) / (1 << 20):.1f} MiB and at most {MAX_MESSAGE >> 20} MiB"
            " are read; keep large artifacts elsewhere (s3://, https://, git) and name them",
        )
    try:
        event = json.loads(
            body,
            object_pairs_hook=_once_each,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise EnvelopeError("", "the message is nested too deeply; write it flatter") from None
    except ValueError as error:
        raise EnvelopeError(
            "", f"the message is not JSON ({error}); send a CloudEvent in structured mode"
        ) from None
    if not isinstance(event, dict):
        raise EnvelopeError("", "the message is no object; send a CloudEvent in structured mode")
    return cast("Mapping[str, JsonValue]", event)


def address_of(event: Mapping[str, JsonValue]) -> Address:
    """Source, id and revision. Raises EnvelopeError."""
    if event.get("specversion") != "1.0":
        raise EnvelopeError("specversion", 'must be "1.0": send a CloudEvent in structured mode')
    revision = event.get("revision")
    text = str(revision) if type(revision) is int else revision
    if not isinstance(text, str) or not _REVISION.fullmatch(text) or int(text) >= 1 << 63:
        raise EnvelopeError(
            "revision", 'must be a whole number from 1, such as "17", that rises with each change'
        )
    return Address(_text(event, "source"), _text(event, "id"), int(text))


def open_envelope(event: Mapping[str, JsonValue], address: Address) -> Envelope:
    """The rest of the envelope. Raises EnvelopeError."""
    kind = event.get("type")
    if kind not in (PUT, DELETE):
        raise EnvelopeError("type", f"must be {PUT} or {DELETE}")
    subject = _subject(event)
    document = b""
    files: Mapping[str, bytes] = {}
    if kind == PUT:
        document, files = _data(event)
    elif subject is None:
        raise EnvelopeError("subject", "is missing; name the object: Kind/namespace/name")
    author = event.get("author", address.source)
    return Envelope(
        deletes=kind == DELETE,
        id=address.id,
        source=address.source,
        revision=address.revision,
        subject=subject,
        author=author if isinstance(author, str) and author else address.source,
        document=document,
        has_lines=_is_text(event.get("data")),
        files=files,
    )


def _text(event: Mapping[str, JsonValue], name: str) -> str:
    value = event.get(name)
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise EnvelopeError(name, "is missing; write a text that is not empty")
    if len(value) > MAX_ID:
        raise EnvelopeError(name, f"is longer than {MAX_ID} characters; write a shorter one")
    return value


def _subject(event: Mapping[str, JsonValue]) -> Key | None:
    value = event.get("subject")
    if value is None:
        return None
    if not isinstance(value, str):
        raise EnvelopeError("subject", "is no text; write Kind/namespace/name")
    try:
        return Key.parse(value)
    except ValueError as error:
        raise EnvelopeError("subject", str(error)) from None


def _data(event: Mapping[str, JsonValue]) -> tuple[bytes, Mapping[str, bytes]]:
    """The document as YAML text, and the files beside it."""
    if "data_base64" in event:
        raise EnvelopeError("data_base64", "is not read; put the document into data")
    data = event.get("data")
    if isinstance(data, dict) and "document" in data and "apiVersion" not in data:
        if unknown := set(data) - {"document", "files"}:
            raise EnvelopeError("data", f"has {min(unknown)!r} beside document and files")
        return _document(data["document"]), _files(data.get("files", {}))
    return _document(data), {}


def _is_text(data: JsonValue) -> bool:
    inner = data.get("document") if isinstance(data, dict) else data
    return isinstance(inner, str)


def _document(data: JsonValue) -> bytes:
    if isinstance(data, str):
        text = data
    elif isinstance(data, dict):
        text = json.dumps(data, ensure_ascii=False, indent=1)
        text = _ESCAPED.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
    else:
        raise EnvelopeError("data", "must be one document: a JSON object, or YAML as text")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise EnvelopeError("data", "holds half a character (a lone surrogate)") from None


def _files(value: JsonValue) -> Mapping[str, bytes]:
    if not isinstance(value, dict):
        raise EnvelopeError("data.files", "must be an object: path to content")
    if len(value) > MAX_FILES:
        raise EnvelopeError("data.files", f"are more than {MAX_FILES}; {ELSEWHERE}")
    files = {path: _content(path, content) for path, content in value.items()}
    size = sum(map(len, files.values()))
    if size > MAX_TRAVELLING:
        raise EnvelopeError("data.files", f"have {size:,} bytes together; {TOO_LARGE}")
    return files


ELSEWHERE = (
    "large artifacts do not travel in messages: commit them to a git source, or let the spec name"
    " where they lie (source: s3://... or https://...)"
)
TOO_LARGE = f"at most {MAX_TRAVELLING >> 20} MiB travel with a message; {ELSEWHERE}"


def _content(path: str, content: JsonValue) -> bytes:
    field = f"data.files[{path!r}]"
    if path == DOCUMENT or path.startswith("/") or ".." in path.split("/") or not path:
        raise EnvelopeError(field, "is no path beside the document; write for example train.py")
    if isinstance(content, str):
        try:
            return content.encode()
        except UnicodeEncodeError:
            raise EnvelopeError(field, "holds half a character (a lone surrogate)") from None
    encoded = content.get("base64") if isinstance(content, dict) and len(content) == 1 else None
    if not isinstance(encoded, str):
        raise EnvelopeError(field, 'must be text, or {"base64": "..."} for bytes')
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise EnvelopeError(field, "is no base64; encode the bytes again") from None


def _once_each(pairs: Sequence[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f'the key "{twice[:60]}" is there twice; keep one')
    return found


def _refuse_constant(token: str) -> NoReturn:
    raise ValueError(f"{token} is no JSON; write a finite number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:60]} is too large for a number")
    return value
