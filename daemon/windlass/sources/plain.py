"""What a YAML value without quotes means: YAML 1.2, and nothing that YAML 1.1 reads otherwise.

Half of the tools that people use still read YAML 1.1, where ``1:30:00`` is 5400 and ``no`` is
false. What the two versions disagree about is refused, with one exception: ``1e-3`` is a number,
as in JSON, because that is what everybody who writes a learning rate means.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

MAX_SHOWN = 60

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_ZERO_LED = re.compile(r"[-+]?0[0-9]+(?:\.[0-9]*)?")
_OTHER_BASE = re.compile(r"[-+]?0[xXoObB][0-9A-Fa-f_]+")
_CLOCK = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-9]{1,2})+(?:\.[0-9_]*)?")
_UNDERSCORED = re.compile(r"[-+]?\.?[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|nan)", re.IGNORECASE)
_TRUTHS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_TRUTH_ALIKE = {"yes": "true", "on": "true", "no": "false", "off": "false"}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_STARTS = frozenset("0123456789+-.~tTfFnNyYoO")
_LIMIT = 1 << 63


class Plain(NamedTuple):
    """A value, or why there is none."""

    value: str | int | float | bool | None
    complaint: str = ""
    """What is wrong, and what to write instead; empty when all is well."""


def show(text: str) -> str:
    """A text as it may stand in a message: short, on one line."""
    text = text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."
    return text.replace("\n", " ")


def read_plain(text: str) -> Plain:
    """The meaning of an unquoted scalar."""
    if text and text[0] not in _STARTS:
        return Plain(text)
    if text in _NULLS:
        return Plain(None)
    if text in _TRUTHS:
        return Plain(_TRUTHS[text])
    if _INTEGER.fullmatch(text):
        return _integer(text)
    complaint = _look_alike(text)
    if complaint:
        return Plain(text, complaint)
    if _FLOAT.fullmatch(text):
        return _float(text)
    return Plain(text)


def _look_alike(text: str) -> str:
    quoted = f'"{show(text)}" in quotes'
    lower = text.lower()
    if lower in _TRUTH_ALIKE:
        meant = _TRUTH_ALIKE[lower]
        return f"some tools read {text} as {meant}; write {meant}, or {quoted}"
    if lower in ("true", "false"):
        return f"{text} is neither {lower} nor text; write {lower}, or {quoted}"
    if _CLOCK.fullmatch(text):
        return (
            f"some tools read {show(text)} as a number in base 60;"
            f" write a duration such as 1h30m, or {quoted}"
        )
    if _ZERO_LED.fullmatch(text):
        bare = text.lstrip("+-").lstrip("0") or "0"
        return (
            f"some tools read {show(text)} as an octal number;"
            f" write {show(bare)} without the zero in front, or {quoted}"
        )
    if _OTHER_BASE.fullmatch(text):
        return f"tools disagree about the number {show(text)}; write it in decimal, or {quoted}"
    if "_" in text and _UNDERSCORED.fullmatch(text):
        bare = show(text.replace("_", ""))
        return f"some tools read {show(text)} as {bare}; write {bare}, or {quoted}"
    if _NOT_FINITE.fullmatch(text):
        return f"{text} is no number that can be kept; write a finite number, or {quoted}"
    return ""


def _integer(text: str) -> Plain:
    if len(text) > 20 or not -_LIMIT <= (value := int(text)) < _LIMIT:
        return Plain(
            text, f'{show(text)} does not fit into 64 bits; write "{show(text)}" in quotes'
        )
    return Plain(value)


def _float(text: str) -> Plain:
    value = float(text)
    if not math.isfinite(value):
        return Plain(
            text, f'{show(text)} is too large for a number; write "{show(text)}" in quotes'
        )
    return Plain(value)
