"""pydantic's errors in plain words: which field, what is wrong, and what to write (hop 1)."""

from __future__ import annotations

import difflib
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Union, get_args, get_origin

from pydantic import BaseModel, JsonValue, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from windlass.sources.document import FieldPath
from windlass.sources.plain import show
from windlass_schemas import KINDS
from windlass_schemas.key import NAME_PATTERN

MAX_ERRORS = 100


class Wrong:
    """One field that does not hold what it must."""

    __slots__ = ("at_key", "message", "path")

    def __init__(self, path: FieldPath, message: str, *, at_key: bool = False) -> None:
        self.path = path
        self.message = message
        self.at_key = at_key
        """Whether the key is wrong and not the value."""


def explain_invalid(error: ValidationError, document: Mapping[str, JsonValue]) -> Iterator[Wrong]:
    """What each error means to the person who wrote the document of a known kind."""
    errors = error.errors(include_url=False)
    # A location begins with the kind.
    details = [(KINDS[str(e["loc"][0])], e["loc"][1:], e) for e in errors[:MAX_ERRORS]]
    yield from _explain(details, document, len(errors))


def explain_fields(
    error: ValidationError, values: Mapping[str, JsonValue], model: type[BaseModel]
) -> Iterator[Wrong]:
    """The same for fields whose model an adapter gives; paths begin at these."""
    errors = error.errors(include_url=False)
    details = [(model, each["loc"], each) for each in errors[:MAX_ERRORS]]
    yield from _explain(details, values, len(errors))


def _explain(
    details: Iterable[tuple[type[BaseModel], FieldPath, ErrorDetails]],
    document: Mapping[str, JsonValue],
    count: int,
) -> Iterator[Wrong]:
    found: dict[FieldPath, Wrong] = {}
    for model, location, detail in details:
        wrong = _wrong(model, location, detail, document)
        found.setdefault(wrong.path, wrong)  # a union gives one for each of its members
    deeper = {path[:i] for path in found for i in range(len(path))}
    for path, wrong in found.items():
        if path not in deeper:  # a list whose items are all wrong is also called too short
            yield wrong
    if count > MAX_ERRORS:
        yield Wrong((), f"{count - MAX_ERRORS} more faults; mend the ones above first")


def _wrong(
    model: type[BaseModel],
    location: FieldPath,
    detail: ErrorDetails,
    document: Mapping[str, JsonValue],
) -> Wrong:
    if location and location[-1] == "[key]":
        return Wrong(location[:-1], _message(detail, ()), at_key=True)
    path, alternatives = _existing(location, document)
    if detail["type"] == "missing":
        return Wrong(location, _missing(model, location), at_key=True)
    if detail["type"] == "extra_forbidden":
        return Wrong(path, _unknown(model, path), at_key=True)
    return Wrong(path, _message(detail, alternatives))


def _existing(
    loc: FieldPath, document: JsonValue | Mapping[str, JsonValue]
) -> tuple[FieldPath, FieldPath]:
    """The part of an error's location that is in the document, and the rest: union members."""
    value: object = document
    for i, part in enumerate(loc):
        in_mapping = isinstance(value, Mapping) and part in value
        in_list = isinstance(value, list) and isinstance(part, int) and part < len(value)
        if not in_mapping and not in_list:
            return loc[:i], loc[i:]
        value = value[part]  # type: ignore[index]  # the two lines above say that it has it
    return loc, ()


def _missing(root: type[BaseModel], path: FieldPath) -> str:
    fields = _model_at(root, path[:-1]).model_fields
    info = next((f for f in fields.values() if f.alias == path[-1]), None)
    meaning = info.description.split("\n")[0].rstrip(".") if info and info.description else ""
    return "is missing; add it" + (f" ({meaning})" if meaning else "")


def _unknown(root: type[BaseModel], path: FieldPath) -> str:
    known = [f.alias or name for name, f in _model_at(root, path[:-1]).model_fields.items()]
    written = str(path[-1])
    camel = to_camel(written.replace("-", "_"))
    if camel in known:
        return f"is written {camel}; write {camel}"
    close = difflib.get_close_matches(camel.lower(), [k.lower() for k in known], n=1, cutoff=0.7)
    meant = next((k for k in known if close and k.lower() == close[0]), None)
    listed = ", ".join(known)
    if meant:
        return f"is no known field; write {meant}, or one of: {listed}"
    return f"is no known field; remove it, or write one of: {listed}"


def _model_at(root: type[BaseModel], path: FieldPath) -> type[BaseModel]:
    """The model of the mapping at a path. The path is one that pydantic itself walked."""
    found = root
    node: object = root
    for part in path:
        node = _inside(node, part)
        for choice in _choices(node):
            if isinstance(choice, type) and issubclass(choice, BaseModel):
                found = choice
    return found


def _inside(annotation: object, part: str | int) -> object:
    for choice in _choices(annotation):
        if isinstance(choice, type) and issubclass(choice, BaseModel):
            for info in choice.model_fields.values():
                if info.alias == part:
                    return info.annotation
        elif get_origin(choice) in (dict, tuple, list):
            arguments = [a for a in get_args(choice) if a is not Ellipsis]
            return arguments[-1]
    return object


def _choices(annotation: object) -> Iterator[object]:
    """The members of a union, without ``Annotated``."""
    if get_origin(annotation) is Annotated:
        yield from _choices(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from _choices(member)
    else:
        yield annotation


def _message(detail: ErrorDetails, alternatives: FieldPath) -> str:
    value, context = detail["input"], detail.get("ctx", {})
    if value is None and detail["type"] != "value_error":
        return "is empty; write a value, or remove the line"
    if alternatives and not isinstance(value, dict | list):
        return "cannot be this; write a number, true, false, or text in quotes"
    if alternatives:
        return "cannot be a mapping or a list; write a number, true, false, or text"
    worded = _WORDING.get(detail["type"])
    if worded is not None:
        return worded(value, context)
    text = detail["msg"].replace("Input should be", "must be").replace("Value error, ", "")
    return f"{text[:1].lower()}{text[1:]}; mend the value"


Context = Mapping[str, object]


def _text(value: object, _: Context) -> str:
    if isinstance(value, dict | list):
        return f"must be text, not {'a mapping' if isinstance(value, dict) else 'a list'}"
    return "must be text; put it in quotes"


def _pattern(value: object, context: Context) -> str:
    said, pattern = show(str(value)), str(context.get("pattern", ""))
    if pattern == NAME_PATTERN:
        return (
            f"\"{said}\" is no name; write lower-case letters, digits and '-',"
            " at most 63 characters, with a letter or digit at both ends"
        )
    if pattern.startswith("^sha256:"):
        return f'"{said}" is no digest; write sha256: and 64 lower-case hex digits'
    if pattern.startswith("^https?:"):
        return f'"{said}" is no address; write for example https://example.com/model.onnx'
    return f'"{said}" does not have the form that is wanted; write text that matches {pattern}'


def _literal(value: object, context: Context) -> str:
    listed = str(context.get("expected", "")).replace("'", "")
    names = listed.replace(" or ", ", ").split(", ")
    close = difflib.get_close_matches(str(value), names, n=1, cutoff=0.6)
    hint = f" (perhaps {close[0]})" if close else ""
    said = f'"{show(str(value))}" ' if isinstance(value, str) else ""
    return f"{said}is not possible here; write {listed}{hint}"


def _value(_: object, context: Context) -> str:
    return str(context.get("error", "is not possible here"))


def _said(text: str) -> Callable[[object, Context], str]:
    return lambda _value, _context: text


def _bound(text: str, name: str) -> Callable[[object, Context], str]:
    return lambda value, context: f"is {value}; write {text} {context.get(name)}"


_WHOLE = _said("must be a whole number; write for example 3, without quotes")
_NUMBER = _said("must be a number; write for example 0.5, without quotes")
_TRUTH = _said("must be true or false; write one of them, without quotes")
_MAPPING = _said("must be a mapping; write indented `key: value` lines under it")
_LIST = _said("must be a list; write [a, b], or lines that start with '- '")
_TIME = _said("must be a time with a zone; write for example 2030-01-31T18:00:00Z")
_EMPTY = _said("must not be empty; write a value, or remove the line")

_WORDING: Mapping[str, Callable[[object, Context], str]] = {
    "string_type": _text,
    "string_pattern_mismatch": _pattern,
    "string_too_short": _EMPTY,
    "too_short": _EMPTY,
    "literal_error": _literal,
    "value_error": _value,
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": _NUMBER,
    "bool_type": _TRUTH,
    "bool_parsing": _TRUTH,
    "greater_than_equal": _bound("a number of at least", "ge"),
    "less_than_equal": _bound("a number of at most", "le"),
    "greater_than": _bound("a number greater than", "gt"),
    "less_than": _bound("a number less than", "lt"),
    "dict_type": _MAPPING,
    "model_type": _MAPPING,
    "model_attributes_type": _MAPPING,
    "tuple_type": _LIST,
    "list_type": _LIST,
    "datetime_type": _TIME,
    "datetime_parsing": _TIME,
    "datetime_from_date_parsing": _TIME,
    "datetime_object_invalid": _TIME,
    "timezone_aware": _TIME,
}
