"""libyaml's complaints in plain words: where it is, what is wrong, and what to write (hop 1)."""

from __future__ import annotations

import yaml

from windlass.sources.text import Complaint, Place

_KEY = "did not find expected key"
_DASH = "did not find expected '-' indicator"
_NESTED = "mapping values are not allowed in this context"
_ADVICE = {
    "could not find expected ':'": "this line has no ':' after its key; write `key: value`",
    _NESTED: (
        "a ':' is not possible here; put the value in quotes if it contains ': ',"
        " or line the key up with the keys above it"
    ),
    _KEY: "this line does not fit; line its key up with the other keys of the same mapping",
    _DASH: "this line does not fit; line it up with the '- ' items above it, or indent it deeper",
    "block sequence entries are not allowed in this context": (
        "a '- ' item cannot start here; put it on its own line, indented"
    ),
    "block mapping keys are not allowed in this context": (
        "a '? ' key cannot start here; write `key: value`"
    ),
    "found unknown escape character": (
        "this backslash escape does not exist; write two backslashes, or use single quotes"
    ),
    "found a tab character where an indentation space is expected": (
        "a tab in the indentation; write spaces"
    ),
    "found a tab character that violates indentation": "a tab in the indentation; write spaces",
    "did not find expected <document start>": (
        "this text stands after the end of the document; indent it, or start it with ---"
    ),
    "did not find expected alphabetic or numeric character": (
        "a value cannot start with * or &; put it in quotes"
    ),
    "found undefined tag handle": "a value cannot start with !; put it in quotes",
}


def explain(error: yaml.YAMLError, text: str, first_line: int) -> Complaint:
    """What a syntax error means to the person who wrote the text."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return Complaint(Place(first_line, 1), "this cannot be read as YAML; look for odd bytes")
    place = _place(error.problem_mark, first_line)
    opened = _place(error.context_mark, first_line) if error.context_mark else place
    problem = error.problem or "this cannot be read"
    if problem == "found character that cannot start any token":
        return Complaint(place, _bad_start(text[error.problem_mark.index :][:1]))
    if problem in ("found unexpected end of stream", "found unexpected document indicator"):
        return Complaint(opened, "the quote that opens here is never closed; close it")
    if problem in ("did not find expected ',' or ']'", "did not find expected ',' or '}'"):
        closing = problem[-2]
        return Complaint(
            opened,
            f"the bracket that opens here is not closed; write , between items and {closing}",
        )
    if problem == "did not find expected node content":
        return Complaint(place, "a value is missing here; write it, or remove the comma or bracket")
    advice = _ADVICE.get(problem)
    if advice is None:
        advice = f"this is no YAML ({problem}); put the value in quotes or mend the indentation"
    return Complaint(place, advice)


def _place(mark: yaml.Mark, first_line: int) -> Place:
    return Place(first_line + mark.line, mark.column + 1)


def _bad_start(character: str) -> str:
    if character == "\t":
        return "a tab is not possible here; write spaces"
    if character == "%":
        return "a line cannot start with %; put it in quotes"
    return f"a value cannot start with {character}; put it in quotes"
