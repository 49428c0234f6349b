"""What the loader refuses of a YAML text: where, and what it says to write instead."""

from __future__ import annotations

import time

import pytest

from windlass.sources.document import MAX_FAULTS, field_text, read_document
from windlass.sources.specfile import read_spec_file
from windlass.sources.text import MAX_DOCUMENT, Piece, split


def told(text: str | bytes) -> list[str]:
    """``line:column field: message`` of everything that is wrong with a text as YAML."""
    data = text.encode() if isinstance(text, str) else text
    found = []
    for piece in split(data):
        for fault in read_document(piece).faults:
            field = f" {field_text(fault.path)}:" if fault.path else ""
            found.append(f"{fault.place.line}:{fault.place.column}{field} {fault.message}")
    return found


def value_of(text: str) -> object:
    document = read_document(Piece(text.encode(), 1))
    assert document.faults == ()
    return document.value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2\n", '2:1 a: the key "a" is here twice, first in line 1; keep one'),
        ("a: {b: 1, b: 2}\n", '1:11 a.b: the key "b" is here twice, first in line 1; keep one'),
        (
            "a: &base {x: 1}\n",
            "1:4 a: the anchor &base; remove it, and write the value out where it is used",
        ),
        ("a: 1\nb: *base\n", "2:4 b: the alias *base; write the value out here"),
        (
            "a: !!str 5\n",
            "1:4 a: the tag !!str; remove it, and put the value in quotes if it is text",
        ),
        (
            "a: !python/object:os.system x\n",
            "1:4 a: the tag !python/object:os.system; remove it,"
            " and put the value in quotes if it is text",
        ),
        ("a:\n  <<: {b: 1}\n", "2:3 a.<<: a merge key (<<); write the values out here"),
        (
            "timeLimit: 1:30:00\n",
            "1:12 timeLimit: some tools read 1:30:00 as a number in base 60;"
            ' write a duration such as 1h30m, or "1:30:00" in quotes',
        ),
        ("a: no\n", '1:4 a: some tools read no as false; write false, or "no" in quotes'),
        ("a: YES\n", '1:4 a: some tools read YES as true; write true, or "YES" in quotes'),
        ("a: On\n", '1:4 a: some tools read On as true; write true, or "On" in quotes'),
        ("a: oFF\n", '1:4 a: some tools read oFF as false; write false, or "oFF" in quotes'),
        ("a: tRue\n", '1:4 a: tRue is neither true nor text; write true, or "tRue" in quotes'),
        (
            "a: 017\n",
            "1:4 a: some tools read 017 as an octal number;"
            ' write 17 without the zero in front, or "017" in quotes',
        ),
        (
            "a: 0o17\n",
            '1:4 a: tools disagree about the number 0o17; write it in decimal, or "0o17" in quotes',
        ),
        (
            "a: 0b11\n",
            '1:4 a: tools disagree about the number 0b11; write it in decimal, or "0b11" in quotes',
        ),
        ("a: 1_000\n", '1:4 a: some tools read 1_000 as 1000; write 1000, or "1_000" in quotes'),
        (
            "a: -.INF\n",
            "1:4 a: -.INF is no number that can be kept;"
            ' write a finite number, or "-.INF" in quotes',
        ),
        ("a: 1e999\n", '1:4 a: 1e999 is too large for a number; write "1e999" in quotes'),
        (
            "a: 99999999999999999999\n",
            "1:4 a: 99999999999999999999 does not fit into 64 bits;"
            ' write "99999999999999999999" in quotes',
        ),
        ("1: x\n", '1:1 1: the key 1 is no text; write "1" in quotes'),
        ("true: x\n", '1:1 true: the key true is no text; write "true" in quotes'),
        ("on: x\n", '1:1 on: some tools read on as true; write true, or "on" in quotes'),
        (
            "~: x\n",
            "1:1 ~: a key that is empty or null; write a name, in quotes if it must be this one",
        ),
        ("? [a, b]\n: x\n", "1:3 a mapping or list as a key; write a text key"),
        ("a:\tb\n", "1:3 a tab between values; write spaces"),
        ("a:\n\tb: 1\n", "2:1 a: a tab is not possible here; write spaces"),
        (
            "a: \x07\n",
            '1:4 the invisible character U+0007; remove it, or write "\\u0007" in quotes',
        ),
        (
            "a: x\u2028y\n",
            '1:5 the invisible character U+2028; remove it, or write "\\u2028" in quotes',
        ),
        ("a: 1\rb: 2\n", "1:5 a carriage return without a line feed; end lines with a line feed"),
        ("a: 'x\nb: 2\n", "1:4 a: the quote that opens here is never closed; close it"),
        (
            "a: [1, 2\nb: 3\n",
            "1:4 a: the bracket that opens here is not closed; write , between items and ]",
        ),
        (
            "a: b: c\n",
            "1:5 a ':' is not possible here; put the value in quotes if it contains ': ',"
            " or line the key up with the keys above it",
        ),
        ("a: @x\n", "1:4 a: a value cannot start with @; put it in quotes"),
        (
            "%YAML 1.2\n---\na: 1\n",
            "1:1 a line cannot start with %; remove the %YAML or %TAG line",
        ),
        (
            'a: "\\d"\n',
            "1:5 a: this backslash escape does not exist;"
            " write two backslashes, or use single quotes",
        ),
    ],
)
def test_what_is_refused_is_told_with_its_place_and_what_to_write(text: str, said: str) -> None:
    assert told(text) == [said]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 'no'", "no"),
        ('a: "1:30:00"', "1:30:00"),
        ('a: "017"', "017"),
        ("a: 2030-01-31T18:00:00Z", "2030-01-31T18:00:00Z"),
        ("a: 2030-01-31", "2030-01-31"),
        ("a: 1e-3", 0.001),
        ("a: 1.5", 1.5),
        ("a: -0.5E+2", -50.0),
        ("a: .5", 0.5),
        ("a: 1.2.3", "1.2.3"),
        ("a: 12", 12),
        ("a: +12", 12),
        ("a: -0", 0),
        ("a: true", True),
        ("a: False", False),
        ("a: ~", None),
        ("a:", None),
        ("a: y", "y"),
        ("a: nothing", "nothing"),
        ("a: 90s", "90s"),
        ("a: |\n  all:\n  \tcc x", "all:\n\tcc x"),
        ("a: 1 # a\ttab in a comment", 1),
        ("a: x\ty", "x\ty"),
        ("a: sha256:00", "sha256:00"),
    ],
)
def test_what_all_tools_read_alike_is_read(text: str, value: object) -> None:
    assert value_of(text) == {"a": value}


def test_all_faults_of_a_document_are_told_at_once() -> None:
    assert [line.split(" ")[0] for line in told("a: no\nb: &x 017\nb: *x\n1: !!int 3\n")] == [
        "1:4",
        "2:4",
        "2:4",
        "3:1",
        "3:4",
        "4:1",
        "4:4",
    ]


def test_a_broken_document_does_not_touch_the_ones_after_it() -> None:
    pieces = list(split(b"a: 'open\n---\nb: 1\n--- # note\nc: 2\n...\n---\nd: 3\n"))
    documents = [read_document(piece) for piece in pieces]
    assert [document.value for document in documents][1:] == [{"b": 1}, {"c": 2}, {"d": 3}]
    assert [bool(document.faults) for document in documents] == [True, False, False, False]
    assert [document.root.value.line for document in documents] == [1, 3, 5, 8]


def test_a_marker_inside_text_must_be_indented_so_cutting_there_is_exact() -> None:
    assert [
        read_document(piece).value for piece in split(b"a: |\n  x\n  ---\n  y\n---\nb: 1\n")
    ] == [
        {"a": "x\n---\ny\n"},
        {"b": 1},
    ]


def test_text_that_is_not_utf8_is_refused_at_its_first_bad_byte() -> None:
    assert told(b"a: 1\nb: x\xff\n") == [
        "2:5 the bytes here are not UTF-8 (perhaps another encoding); save the file as UTF-8"
    ]
    assert told("a: 1\n".encode("utf-16")) == [
        "1:1 the bytes here are not UTF-8 (perhaps UTF-16); save the file as UTF-8"
    ]


def test_a_byte_order_mark_at_the_start_is_no_fault() -> None:
    assert told(b"\xef\xbb\xbfa: 1\n") == []


def test_columns_count_characters_and_not_bytes() -> None:
    assert told("{é: 1, ü: no}\n") == [
        '1:11 ü: some tools read no as false; write false, or "no" in quotes'
    ]


def test_a_document_over_one_mebibyte_is_refused_and_the_next_is_read() -> None:
    pieces = list(split(b"a: " + b"x" * MAX_DOCUMENT + b"\n---\nb: 1\n"))
    first, second = (read_document(piece) for piece in pieces)
    assert first.faults[0].message == (
        "the document is 1.0 MiB large and at most 1 MiB is read;"
        " put large values into a file beside it and name that file"
    )
    assert second.value == {"b": 1}


def test_a_hundred_levels_are_read_and_one_more_is_refused() -> None:
    assert told("[" * 100 + "]" * 100) == []
    assert told("[" * 101 + "]" * 101) == ["1:101 more than 100 levels deep; write it flatter"]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 1_000_000,
        "{a: " * 250_000,
        "? " * 500_000,
        "- " * 500_000,
        "a: &a [" + "*a," * 300_000 + "]",
        "x:\n" + "".join(f"  a{i}: &a{i} [*a{i - 1},*a{i - 1}]\n" for i in range(20_000)),
        "a: 1\n" * 200_000,
        "[" + "no," * 300_000 + "]",
        "\x07" * 1_000_000,
        "a:\t1\n" * 170_000,
        "a: '" + "\n" * 1_000_000,
        "".join(f"k{i}:\n" + " " * i for i in range(99)) + "x: 1",
        "{" + ("k" * 250 + ": {") * 99 + ",".join(f"a{i}: no" for i in range(50_000)),
    ],
    ids=range(13),
)
def test_hostile_text_is_refused_in_bounded_time(text: str) -> None:
    begin = time.process_time()
    found = told(text)
    assert time.process_time() - begin < 10
    assert 0 < len(found) <= MAX_FAULTS + 1 or not found


def test_faults_beyond_a_hundred_are_counted() -> None:
    found = told("[" + "no," * 150 + "]")
    assert len(found) == MAX_FAULTS + 1
    assert found[-1].endswith("50 more faults in this document; mend the ones above first")


def test_an_empty_file_is_a_fault_because_it_may_be_half_saved() -> None:
    assert [str(f) for f in read_spec_file(b" \n", "a.yaml").faults] == [
        "a.yaml:1:1 the file is empty; write a document into it, or remove it"
    ]


def test_a_file_of_comments_declares_nothing_and_is_no_fault() -> None:
    file = read_spec_file(b"# nothing\n---\n# here\n...\n", "a.yaml")
    assert (file.specs, file.faults) == ((), ())
