"""Requests and responses against botocore's own service model, in the words of AWS.

botocore's client checks required members, types and minimums only; the service checks enums,
patterns and maximums too, and so does this.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import botocore.session
from botocore.model import OperationModel, ServiceModel, Shape

Json = dict[str, Any]  # a request or response: what it holds is for the service model to say

# Python's patterns have no Unicode categories. Those that botocore uses, near enough.
_CATEGORIES = {
    r"\p{L}": r"a-zA-Z\u00aa\u00b5\u00ba\u00c0-\u024f\u0370-\u1fff\u2c00-\ud7ff",
    r"\p{M}": "\u0300-\u036f",
    r"\p{N}": r"\d",
    r"\p{Z}": " \u00a0\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",
    r"\p{P}": r"!-#%-*,-/:;?@\[-\]_{}\u00a1-\u00bf\u2010-\u2027\u3001-\u3003",
    r"\p{S}": r"$+<=>^`|~\u00a2-\u00b1\u00d7\u00f7\u20a0-\u20bf\u2190-\u23ff",
    r"[\p{Print}]": r"[\x20-\x7e]",
    r"\p{Print}": r"[\x20-\x7e]",
    r"\p{ASCII}": r"[\x00-\x7f]",
    r"\p{Alnum}": "a-zA-Z0-9",
    r"\z": r"\Z",
}
_BEYOND_16_BIT = r"\uD800\uDC00-\uDBFF\uDFFF"


@cache
def service_model(service: str) -> ServiceModel:
    """A service's model, as the installed botocore has it."""
    return _loader().get_service_model(service)


@cache
def _loader() -> botocore.session.Session:
    return botocore.session.get_session()


@cache
def operation_model(service: str, operation: str) -> OperationModel | None:
    """An operation's model; None when AWS has no such operation."""
    model = service_model(service)
    return model.operation_model(operation) if operation in model.operation_names else None


@cache
def pattern(text: str) -> re.Pattern[str]:
    """A pattern of the service model as Python reads it."""
    text = re.sub(r"\$\{1,\d+\}$", "", text)
    text = text.replace(_BEYOND_16_BIT, "\U00010000-\U0010ffff")
    for category, characters in _CATEGORIES.items():
        text = text.replace(category, characters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "possible nested set": no set operations in Java's sense
        return re.compile(text)


def request_errors(shape: Shape | None, value: Json) -> list[str]:
    """Everything that is wrong with a request."""
    return [] if shape is None else list(_walk(shape, value, "", strict=True))


def response_errors(shape: Shape | None, value: Json) -> list[str]:
    """Everything in an answer that AWS would not answer. Enums may grow, so values are free."""
    if shape is None:
        return [] if not value else [f"an answer where there is none: {value}"]
    return list(_walk(shape, value, "", strict=False))


def only_members(shape: Shape, value: Json) -> Json:
    """The members of a request that its answer repeats."""
    return {name: held for name, held in value.items() if name in shape.members}


def _walk(shape: Shape, value: Any, path: str, *, strict: bool) -> Iterator[str]:
    match shape.type_name:
        case "structure":
            yield from _structure(shape, value, path, strict=strict)
        case "list":
            if not isinstance(value, list):
                yield f"Value at '{path}' is not a list"
                return
            yield from _limits(shape, len(value), "length", value, path)
            for number, item in enumerate(value, 1):
                yield from _walk(shape.member, item, f"{path}.{number}.member", strict=strict)
        case "map":
            if not isinstance(value, dict):
                yield f"Value at '{path}' is not a map"
                return
            yield from _limits(shape, len(value), "length", value, path)
            for key, item in value.items():
                yield from _walk(shape.key, key, f"{path}.key", strict=strict)
                yield from _walk(shape.value, item, f"{path}.{key}", strict=strict)
        case kind:
            yield from _scalar(kind, shape, value, path, strict=strict)


def _structure(shape: Shape, value: Any, path: str, *, strict: bool) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"Value at '{path}' is not a structure"
        return
    inside = f"{path}." if path else ""
    for name in shape.required_members:
        if value.get(name) is None:
            yield (
                f"Value null at '{inside}{_lower(name)}' failed to satisfy constraint: "
                "Member must not be null"
            )
    for name, held in value.items():
        if name not in shape.members:
            yield f"Unknown member '{name}' at '{path or '/'}'"
        elif held is not None:
            yield from _walk(shape.members[name], held, inside + _lower(name), strict=strict)


def _scalar(kind: str, shape: Shape, value: Any, path: str, *, strict: bool) -> Iterator[str]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    right = {
        "string": isinstance(value, str),
        "integer": number and isinstance(value, int),
        "long": number and isinstance(value, int),
        "float": number,
        "double": number,
        "timestamp": number,
        "boolean": isinstance(value, bool),
    }.get(kind, True)
    if not right:
        yield f"Value '{value}' at '{path}' is not a {kind}"
        return
    if kind == "string":
        yield from _limits(shape, len(value), "length", value, path)
        if strict:
            yield from _words(shape, value, path)
    elif number and kind != "timestamp":
        yield from _limits(shape, value, "value", value, path)


def _words(shape: Shape, value: str, path: str) -> Iterator[str]:
    failed = f"Value '{value}' at '{path}' failed to satisfy constraint: Member must satisfy "
    if shape.enum and value not in shape.enum:
        yield f"{failed}enum value set: [{', '.join(shape.enum)}]"
    wanted = shape.metadata.get("pattern")
    if wanted and not pattern(wanted).fullmatch(value):
        yield f"{failed}regular expression pattern: {wanted}"


def _limits(shape: Shape, number: float, what: str, value: object, path: str) -> Iterator[str]:
    failed = f"Value '{value}' at '{path}' failed to satisfy constraint: Member must have {what} "
    most, least = shape.metadata.get("max"), shape.metadata.get("min")
    if most is not None and number > most:
        yield f"{failed}less than or equal to {most}"
    if least is not None and number < least:
        yield f"{failed}greater than or equal to {least}"


def _lower(name: str) -> str:
    return name[0].lower() + name[1:]
