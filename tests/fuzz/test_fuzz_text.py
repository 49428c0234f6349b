"""Texts from outside, mutated: they are read, or refused in the way that is written down."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rig.fuzzing import GROWTH, fuzzed, growth, in_time, mutated
from windlass.plan.lasting import is_ignored
from windlass.sources.ignore import Ignore
from windlass.sources.specfile import read_spec_file
from windlass.store import rows
from windlass.store.base import StoreError
from windlass_schemas import (
    CloudEvent,
    Policy,
    digest_of_resource,
    dump_resource,
    parse_resource,
)

_JSON = (b"{", b'"', b"null", b"1e999", b",", b"-", b"\\u0000", b"\\ud800", b"[]", b"9" * 30)
_YAML = (b"\n", b": ", b"- ", b"&a ", b"*a", b"!!x ", b"{", b"]", b"'", b'"', b"\t", b"---\n")
_ODD = (b"\0", b"\xff", b"\xf0\x9f\x8d\xb7", b"|\n", b"<<", b"? ", b"9" * 40, b"  ", b"\r")
_GLOB = (b"*", b"**/", b"/", b"!", b"[", b"]", b"\\", b"?", b"\n", b" ", b"{a,b}", b"a", b"\xff")
WORDS = {"yaml": (*_YAML, *_ODD), "ignore": _GLOB, "event": _JSON, "row": _JSON}


def read_yaml(data: bytes) -> None:
    """Every document is good or has a fault with a place; a good one survives its own dump."""
    found = read_spec_file(data, "specs/f.yaml")
    for fault in found.faults:
        assert fault.line >= 1
        assert fault.column >= 1
        assert fault.message
        str(fault).encode(errors="strict")
    for spec in found.specs:
        again = parse_resource(dump_resource(spec.resource))
        assert again == spec.resource
        assert digest_of_resource(again, {}) == digest_of_resource(spec.resource, {})
        spec.fault("metadata.name", "nothing")


def read_ignore(data: bytes) -> None:
    """A pattern file is refused with ValueError, or answers for any path."""
    try:
        ignore = Ignore(data.decode(errors="replace"))
    except ValueError:
        return
    for path in (
        "a.yaml",
        "a/b/c.yaml",
        "a" * 200 + ".yaml",
        "a/" * 60 + "b.yaml",
        "\udcff/x.yaml",
    ):
        ignore.takes(path)


def read_event(data: bytes) -> None:
    """An event is refused with ValidationError, or is the same after a round."""
    try:
        event = CloudEvent.model_validate_json(data)
    except ValidationError:
        return
    assert CloudEvent.model_validate_json(event.model_dump_json()) == event
    assert event.routing_key.startswith("windlass.")


def read_row(data: bytes) -> None:
    """A column that is damaged is a StoreError: a pass can say so, and the daemon goes on."""
    text = data.decode(errors="replace")
    now = datetime(2030, 1, 1, tzinfo=UTC).isoformat()
    row: dict[str, str | int | None] = dict.fromkeys(
        ("digest", "source", "revision", "author", "path", "prune", "conflict", "suspended"), text
    )
    row |= {"key": "Job/default/a", "uid": "u", "generation": 1, "line": 1, "seq": None}
    row |= {"created_at": now, "generation_at": now, "deleting_since": None, "sync_token": None}
    row |= {"resource": text, "files": text, "faults": text, "status": text, "hold": text}
    readers: list[Callable[[], object]] = [
        lambda: rows.record_of(text),
        lambda: rows.entry_of(text),
        lambda: rows.event_of(text),
        lambda: rows.object_of(row | {"records": text}),
        lambda: rows.object_of(row | {"key": text, "created_at": text, "records": None}),
        lambda: rows.declared_of(row | {"deleting_since": text}),
        lambda: rows.source_of(row | {"id": text, "error": "", "blocked": text, "updated_at": now}),
    ]
    for read in readers:
        with suppress(StoreError):
            read()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "yaml": read_yaml,
    "ignore": read_ignore,
    "event": read_event,
    "row": read_row,
}


@fuzzed
@given(mutated("yaml", WORDS["yaml"]))
def test_any_yaml_is_read_or_refused(data: bytes) -> None:
    """Specs with anything done to them."""
    in_time(read_yaml, data)


@fuzzed
@given(mutated("ignore", WORDS["ignore"]))
def test_any_ignore_file_is_read_or_refused(data: bytes) -> None:
    """``.windlassignore`` with anything in it, and no pattern that takes for ever."""
    in_time(read_ignore, data)


@fuzzed
@given(mutated("event", WORDS["event"]))
def test_any_event_is_read_or_refused(data: bytes) -> None:
    """CloudEvents JSON, as a subscriber or a replay reads it."""
    in_time(read_event, data)


@fuzzed
@given(mutated("row", WORDS["row"]))
def test_any_row_is_read_or_is_a_store_error(data: bytes) -> None:
    """Columns of the database that something has damaged."""
    in_time(read_row, data)


_tokens = st.lists(st.sampled_from(["spec", "a", "replicas", "~0", "~1", "é"]), max_size=4)


@fuzzed
@given(_tokens, _tokens, st.text("/~01a", max_size=6))
def test_a_pointer_ignores_its_field_and_what_is_below_it_and_nothing_else(
    path: list[str], pointer: list[str], odd: str
) -> None:
    """Also for pointers with empty names, which a person may write by mistake."""
    where, what = "".join(f"/{t}" for t in path), "".join(f"/{t}" for t in pointer)
    if pointer:
        assert is_ignored(where, (what,)) == (path[: len(pointer)] == pointer)
    try:
        policy = Policy.model_validate({"ignore": [odd]})
    except ValidationError:
        return
    if not odd.strip("/"):
        assert not is_ignored(where, policy.ignore), odd


@pytest.mark.parametrize("kind", TARGETS)
def test_reading_many_texts_leaves_nothing_behind(kind: str) -> None:
    """Memory is where it was."""
    assert growth(TARGETS[kind], kind, WORDS[kind]) < GROWTH
