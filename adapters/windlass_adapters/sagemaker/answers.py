"""Read the answers of AWS with types: below hops 5 and 7 of the sagemaker adapter.

An answer is what the client library made of JSON: dicts, lists, texts, numbers and times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

Answer = Mapping[str, object]


def text(answer: Answer, name: str) -> str:
    """A text; empty when the member is not there."""
    found = answer.get(name)
    return found if isinstance(found, str) else ""


def number(answer: Answer, name: str) -> float | None:
    """A number, if the member is there."""
    found = answer.get(name)
    return float(found) if isinstance(found, int | float) else None


def count(answer: Answer, name: str) -> int | None:
    """A whole number, if the member is there."""
    found = answer.get(name)
    return found if isinstance(found, int) else None


def moment(answer: Answer, name: str) -> datetime | None:
    """A point in time, if the member is there."""
    found = answer.get(name)
    return found if isinstance(found, datetime) else None


def part(answer: Answer, name: str) -> Answer:
    """A structure; empty when the member is not there."""
    found = answer.get(name)
    return found if isinstance(found, Mapping) else {}


def parts(answer: Answer, name: str) -> Iterator[Answer]:
    """The structures of a list; none when the member is not there."""
    found = answer.get(name)
    if isinstance(found, list):
        for each in found:
            if isinstance(each, Mapping):
                yield each


def texts(answer: Answer, name: str) -> list[str]:
    """The texts of a list."""
    found = answer.get(name)
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def tags_of(answer: Answer, name: str = "Tags") -> dict[str, str]:
    """A list of ``{Key, Value}`` as a mapping."""
    return {text(tag, "Key"): text(tag, "Value") for tag in parts(answer, name)}
