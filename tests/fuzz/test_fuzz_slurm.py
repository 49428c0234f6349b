"""What a cluster answers, mutated: it is read or refused, and nothing good is concluded from it."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rig.fuzzing import GROWTH, fuzzed, growth, in_time, mutated
from windlass_adapters.base import AdapterError
from windlass_adapters.slurm.login import parse_answer
from windlass_adapters.slurm.outcome import Evidence, Kind, judge
from windlass_adapters.slurm.remote.looking import parse_sacct
from windlass_adapters.slurm.remote.records import by_name
from windlass_adapters.slurm.remote.site import PREFIX, parse_squeue
from windlass_adapters.slurm.snapshot import expand, parse_look

NONCE = "0123456789abcdef01234567"
ROOT = "/scratch/ada/windlass"
_MARK = NONCE.encode()
_STATES = (b"COMPLETED", b"PENDING", b"REQUEUE_HOLD", b"CANCELLED by 0", b"NEVER_HEARD_OF", b"")
_BARS = (
    b"|",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"\xe2\x80\xa8",
    b"wl-",
    b"[0-9%2]",
    b"N/A",
    b" ",
    b"/scratch/ada/windlass/",
)
_JSON = (b"{", b'"', b"null", b"[]", b"-1", b"1e999", b'"\\ud800"', b"9" * 30, b",", b"true")
WORDS = {
    "squeue": (*_STATES, *_BARS, _MARK, _MARK + b"|"),
    "sacct": (*_STATES, *_BARS, _MARK, b"\n" + _MARK, b"None assigned", b"0:0", b"Unknown"),
    "look": (*_STATES, *_JSON, b'"0"', b'"kept"', b'"rc"', b"[0-199999]"),
    "answer": (*_JSON, b"\n" + _MARK + b"\n", _MARK, b'"ok"', b'"kind"', b'"errno"'),
}


def read_squeue(data: bytes) -> None:
    """Only lines that carry this request's mark count, and only names that are ours."""
    text = data.decode("utf-8", "replace")
    rows = list(parse_squeue(text, NONCE, ROOT))
    marked = [line for line in text.split("\n") if line.startswith(NONCE + "|")]
    assert len(rows) <= len(marked)
    for row in rows:
        assert row.name.startswith(PREFIX)
        assert all("\n" not in field for field in row)
        expand(row.element)
    assert sum(map(len, by_name(rows).values())) == len(rows)


def read_sacct(data: bytes) -> None:
    """Only whole lines that this request's mark parts, about names that are ours."""
    text = data.decode("utf-8", "replace")
    lines = parse_sacct(text, NONCE)
    assert len(lines) <= text.count(NONCE) // 5
    for fields in lines:
        assert fields[5].startswith(PREFIX)
        assert all("\n" not in field and NONCE not in field for field in fields)


def read_answer(data: bytes) -> None:
    """An answer that is not whole is none."""
    with suppress(AdapterError):
        parse_answer(data, NONCE)
        assert data.count(b"\n" + _MARK + b"\n") >= 2 or data.count(_MARK) >= 2


def read_look(data: bytes) -> None:
    """A run has ended well only if its own record says 0 and nobody in the queue disagrees."""
    try:
        answer = json.loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return
    if not isinstance(answer, dict):
        return
    try:
        look = parse_look(answer, 1.0)
    except AdapterError:
        return
    for token, record in look.records.items():
        name = PREFIX + token
        rows, accounts = look.rows_of(token, name), look.accounts_of(token, name)
        for accounting in (False, True):
            evidence = Evidence(rows, record, accounts, accounting, 1e6)
            said = judge(evidence)
            str(said).encode(errors="replace")
            if said.kind is Kind.GOOD:
                assert any(end[:1] == ["0"] for end in record.ends.values()), said
                array = record.order is not None and record.order.array is not None
                assert array or all(r.state == "COMPLETED" for r in rows if r.label == said.job)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "squeue": read_squeue,
    "sacct": read_sacct,
    "answer": read_answer,
    "look": read_look,
}


@pytest.mark.parametrize("kind", TARGETS)
def test_what_a_cluster_says_is_read_or_refused(kind: str) -> None:
    """Cut, doubled, with odd bytes and foreign names: no exception of any other sort."""

    @fuzzed
    @given(mutated(kind, WORDS[kind]))
    def feed(data: bytes) -> None:
        in_time(TARGETS[kind], data)

    feed()


@pytest.mark.parametrize("kind", TARGETS)
def test_reading_what_a_cluster_says_keeps_nothing(kind: str) -> None:
    """Hundreds of answers later there is as much memory as before."""
    assert growth(TARGETS[kind], kind, WORDS[kind]) < GROWTH


_NAME = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@fuzzed
@given(st.lists(_NAME, max_size=20))
def test_no_name_of_a_job_can_pass_for_another_line(names: list[str]) -> None:
    """Names with blanks, bars, line ends and our own prefix: each job is its own, or left out."""
    mine = f"RUNNING|None|n1|{ROOT}/jobs/a"
    lines = [f"{NONCE}|{n}|{n}|N/A|{mine}|{name}" for n, name in enumerate(names)]
    text = "\n".join(lines)
    found = {int(row.id) for row in parse_squeue(text, NONCE, ROOT)}
    ours = {n for n, name in enumerate(names) if name.startswith(PREFIX)}
    assert found == ours
    fields = ("RUNNING", "0:0", "2030-01-01T00:00:00", "n1")
    books = "\n".join(NONCE.join((str(n), *fields, name)) for n, name in enumerate(names))
    assert {int(line[0]) for line in parse_sacct(books, NONCE)} == ours
