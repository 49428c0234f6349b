"""The bytes of a YAML file, cut into documents: the first step of hop 1.

A line that starts with ``---`` is a document marker wherever it stands: YAML forbids it inside
quoted, plain and block text alike. So cutting there is exact, and a document whose syntax is broken
cannot swallow the ones after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

MAX_DOCUMENT = 1 << 20
"""Bytes in one document."""
MAX_DOCUMENTS = 10_000
"""Documents in one file."""
MAX_COMPLAINTS = 100
"""Bad characters told of one document: finding the place of each costs time."""

_MARKER = re.compile(rb"^(?:---|\.\.\.)(?=[ \t\r\n]|\Z)", re.MULTILINE)
_UNWANTED = re.compile(
    "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]|\r(?!\n)",
)
_DIRECTIVE = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n)*%")
_UTF8_MARK = b"\xef\xbb\xbf"


class Place(NamedTuple):
    """A position in a file, both counted from 1."""

    line: int
    column: int


class Complaint(NamedTuple):
    """Something wrong with the text as such, and what to write instead."""

    place: Place
    message: str


class Piece(NamedTuple):
    """The bytes of one document, with its ``---`` line."""

    data: bytes
    line: int
    """Where it starts in the file, counted from 1."""


def split(data: bytes) -> Iterator[Piece]:
    """Cut a file into documents. The caller has bounded its size."""
    if data.startswith(_UTF8_MARK):
        data = data[len(_UTF8_MARK) :]
    start, line = 0, 1
    for marker in _MARKER.finditer(data):
        end = marker.start()
        if data[end : end + 1] == b".":
            newline = data.find(b"\n", end)
            end = len(data) if newline < 0 else newline + 1
        if end > start:
            yield Piece(data[start:end], line)
            line += data.count(b"\n", start, end)
            start = end
    if start < len(data):
        yield Piece(data[start:], line)


def decode(piece: Piece) -> tuple[str, tuple[Complaint, ...]]:
    """The text of one document; empty, with the complaints, when it must not be read further."""
    if len(piece.data) > MAX_DOCUMENT:
        size = len(piece.data) / MAX_DOCUMENT
        return "", (
            Complaint(
                Place(piece.line, 1),
                f"the document is {size:.1f} MiB large and at most 1 MiB is read;"
                " put large values into a file beside it and name that file",
            ),
        )
    try:
        text = piece.data.decode()
    except UnicodeDecodeError as error:
        return "", (_not_utf8(piece, error),)
    directive = _DIRECTIVE.match(text)
    if directive:
        message = "a line cannot start with %; remove the %YAML or %TAG line"
        return text, (Complaint(place_of(text, directive.end() - 1, piece.line), message),)
    return text, tuple(
        Complaint(place_of(text, found.start(), piece.line), _unwanted(found.group()))
        for found in islice(_UNWANTED.finditer(text), MAX_COMPLAINTS)
    )


def place_of(text: str, index: int, first_line: int) -> Place:
    """Line and column of a character."""
    line_start = text.rfind("\n", 0, index) + 1
    return Place(first_line + text.count("\n", 0, index), index - line_start + 1)


def _not_utf8(piece: Piece, error: UnicodeDecodeError) -> Complaint:
    before = piece.data[: error.start].decode()
    what = "UTF-16" if piece.data[:2] in (b"\xff\xfe", b"\xfe\xff") else "another encoding"
    return Complaint(
        place_of(before, len(before), piece.line),
        f"the bytes here are not UTF-8 (perhaps {what}); save the file as UTF-8",
    )


def _unwanted(character: str) -> str:
    if character == "\r":
        return "a carriage return without a line feed; end lines with a line feed"
    name = f"U+{ord(character):04X}"
    return f'the invisible character {name}; remove it, or write "\\u{name[2:].lower()}" in quotes'
