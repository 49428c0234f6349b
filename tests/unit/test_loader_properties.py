"""The loader under random input: it reads what was meant, or refuses; it never breaks."""

from __future__ import annotations

import re

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from windlass.sources.document import read_document
from windlass.sources.specfile import read_spec_file
from windlass.sources.text import Piece, split

_ONE_POINT_TWO_FLOAT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+|[-+]?\.[0-9]+[eE][0-9]+")

_words = st.sampled_from(
    [
        "no",
        "On",
        "017",
        "1:30",
        "0o7",
        "1_0",
        "1e3",
        ".inf",
        "~",
        "",
        "<<",
        "=",
        "---",
        "- a",
        "a: b",
    ]
)
_text = st.text(max_size=20) | _words
_scalars = (
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _text
)
_json = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=20,
)


def _as_yaml_1_2(value: object) -> object:
    """``1e3`` is text for the library that wrote it, and a number in YAML 1.2."""
    if isinstance(value, str) and _ONE_POINT_TWO_FLOAT.fullmatch(value):
        return float(value)
    if isinstance(value, list):
        return [_as_yaml_1_2(item) for item in value]
    if isinstance(value, dict):
        return {key: _as_yaml_1_2(item) for key, item in value.items()}
    return value


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(_text, _json, min_size=1, max_size=5), st.booleans())
def test_dumped_json_loads_to_the_same_value_or_is_refused(
    value: dict[str, object], unicode: bool
) -> None:
    data = yaml.safe_dump(value, allow_unicode=unicode).encode()
    documents = [read_document(piece) for piece in split(data)]
    if any(document.faults for document in documents):
        return
    assert [document.value for document in documents] == [_as_yaml_1_2(value)]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes_give_faults_or_specs_and_nothing_else(data: bytes) -> None:
    file = read_spec_file(data, "a.yaml")
    for fault in file.faults:
        assert fault.line >= 1
        assert fault.column >= 1
        assert fault.message


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [
                *"-:?[]{},&*!|>'\"%@# \n\t",
                "  ",
                "\n  ",
                "---\n",
                "...\n",
                "a",
                "1",
                "no",
                "<<",
                "\r\n",
            ]
        ),
        max_size=60,
    ).map("".join)
)
def test_random_yaml_like_text_never_breaks_the_reader(text: str) -> None:
    for piece in split(text.encode()):
        document = read_document(piece)
        lines = text.count("\n") + 1
        assert all(1 <= fault.place.line <= lines + 1 for fault in document.faults)
        assert document.complete or document.faults


_kinds = st.sampled_from(["Job", "Model", "Deployment", "Target", "Sweep"])
_fields = st.sampled_from(
    [
        "apiVersion",
        "kind",
        "metadata",
        "spec",
        "policy",
        "name",
        "namespace",
        "labels",
        "entrypoint",
        "command",
        "files",
        "params",
        "env",
        "inputs",
        "outputs",
        "target",
        "options",
        "timeLimit",
        "time_limit",
        "retries",
        "onChange",
        "source",
        "file",
        "url",
        "job",
        "output",
        "model",
        "digest",
        "format",
        "adapter",
        "onDelete",
        "prune",
        "dependsOn",
        "ref",
        "suspend",
        "until",
        "reason",
    ]
)
_like_a_spec = st.recursive(
    _scalars | st.sampled_from(["windlass/v1", "90s", "a", "../x", "a/b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_fields, inner, max_size=6),
    max_leaves=30,
)


@settings(max_examples=400, deadline=None)
@given(
    _kinds,
    st.dictionaries(_fields, _like_a_spec, max_size=6),
    st.dictionaries(_fields, _like_a_spec, max_size=6),
)
def test_no_message_speaks_the_language_of_the_validation_library(
    kind: str, top: dict[str, object], spec: dict[str, object]
) -> None:
    document = {**top, "apiVersion": "windlass/v1", "kind": kind, "spec": spec}
    piece = Piece(yaml.safe_dump(document).encode(), 1)
    for fault in read_spec_file(piece.data, "a.yaml").faults:
        text = str(fault)
        assert "nput should" not in text
        assert "pydantic" not in text
        assert "https://errors" not in text
        assert not fault.field.startswith(("Job.", "Model.", "Deployment.", "Target."))
