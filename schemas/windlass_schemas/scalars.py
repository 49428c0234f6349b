"""Scalar types of the specs: names, durations, digests, paths inside a source, JSON pointers."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from windlass_schemas.key import NAME_PATTERN

Name = Annotated[
    str,
    Field(
        pattern=NAME_PATTERN,
        description="Lower-case letters, digits and '-', at most 63 characters.",
    ),
]

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"
_DURATION = re.compile(_DURATION_PATTERN)
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")


def parse_duration(value: object) -> timedelta:
    """Read ``90s``, ``1h30m`` or ``250ms``. A bare number is refused: its unit would be a guess."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or not _DURATION.match(value):
        raise ValueError("a duration is a number with a unit; write for example 90s, 15m or 1h30m")
    seconds = sum(float(n) * _UNITS[unit] for n, unit in _DURATION_PART.findall(value))
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        raise ValueError("this duration is longer than any clock counts; write less") from None


def format_duration(value: timedelta) -> str:
    """The shortest exact text of a duration, for example ``1h30m``."""
    milliseconds = round(value.total_seconds() * 1000)
    if milliseconds == 0:
        return "0s"
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        count, milliseconds = divmod(milliseconds, round(_UNITS[unit] * 1000))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _DURATION_PATTERN, "examples": ["90s", "1h30m"]}),
]


Digest = Annotated[
    str,
    Field(pattern=r"^sha256:[0-9a-f]{64}$", description="sha256: and 64 lower-case hex digits."),
]


def inside_source(value: str) -> str:
    """Refuse a path that is not inside its folder. Raises ValueError."""
    path = PurePosixPath(value)
    if not value or path.is_absolute() or ".." in path.parts or "\0" in value or "\\" in value:
        raise ValueError("must be a relative path inside the folder; no '..', no leading '/'")
    if str(path) == ".":
        raise ValueError("must name a file, not the folder itself")
    return str(path)


RelativePath = Annotated[str, AfterValidator(inside_source)]


def _pointer(value: str) -> str:
    if not value.startswith("/") or re.search(r"~(?![01])", value):
        raise ValueError("must be a JSON pointer that starts with '/', for example /spec/replicas")
    return value


JsonPointer = Annotated[str, AfterValidator(_pointer)]
