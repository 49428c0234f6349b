"""The compiled reader of numbers gives what Python and numpy give, or nothing at all."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from windlass.serving import decimals

ROOT = Path(__file__).parents[2]
SPACE = st.sampled_from(["", "", " ", "\n", "\t \r"])
TEXTS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,24})?([eE][+-]?[0-9]{1,4})?", fullmatch=True
)


def read(text: str, count: int) -> list[float] | None:
    """The floats as Python numbers; None if the reader stands back."""
    assert decimals.floats is not None, (
        "the tests need the compiled form: a C compiler and Python's headers; see .venv/install.log"
    )
    body = f'{{"data": {text}}}'.encode()
    found = decimals.floats(body, 9, count)
    if found is None:
        return None
    raw, end = found
    assert body[end:] == b"}"
    values: list[float] = np.frombuffer(raw, np.float32).tolist()
    return values


def same(found: list[float], numbers: list[float]) -> bool:
    """Also in the sign of a zero."""
    with np.errstate(over="ignore", under="ignore"):
        wanted = np.array([float(number) for number in numbers], np.float64).astype(np.float32)
    return np.array(found, np.float32).tobytes() == wanted.tobytes()


@given(st.lists(st.tuples(SPACE, TEXTS, SPACE), min_size=1, max_size=9))
def test_each_number_is_the_float_that_the_long_way_gives(parts: list[tuple[str, ...]]) -> None:
    text = "[" + ",".join("".join(part) for part in parts) + "]"
    found = read(text, len(parts))
    if found is not None:
        assert same(found, json.loads(text))


@given(st.floats(width=32, min_value=2.0**-90, max_value=2.0**90), st.integers(-60, 60))
@example(1.0, 0)
@example(2.0**24, 0)
def test_nothing_is_rounded_to_the_wrong_side(value: float, steps: int) -> None:
    middle = (value + float(np.nextafter(np.float32(value), np.float32(np.inf)))) / 2
    near = middle + steps * float(np.spacing(middle))
    for digits in (15, 16, 17, 19):
        text = f"[{near:.{digits - 1}e}]"
        found = read(text, 1)
        if found is not None:
            assert same(found, json.loads(text))


@given(st.lists(st.floats(width=32, min_value=-1000, max_value=1000), min_size=1, max_size=50))
def test_what_clients_send_is_taken(numbers: list[float]) -> None:
    for values in (
        [round(number, 4) for number in numbers],
        [float(str(np.float32(number))) for number in numbers],
        [int(number) for number in numbers],
    ):
        kept = [value for value in values if not 0 < abs(value) < 1e-9]
        for separators in ((",", ":"), (", ", ": ")):
            text = json.dumps([0.0, *kept], separators=separators)
            found = read(text, len(kept) + 1)
            assert found is not None
            assert same(found, json.loads(text))


def test_numbers_with_all_digits_of_a_double_are_taken() -> None:
    numbers = np.random.default_rng(7).normal(size=5000).tolist()
    found = read(json.dumps(numbers), 5000)
    assert found is not None
    assert same(found, numbers)


@pytest.mark.parametrize(
    "text",
    [
        *("[1, 2]", "[1, 2, 3, 4]", "[1, 2, 3", "[1, 2, 3,]", "[1, 2 3]", "[1,, 2, 3]", "1, 2, 3]"),
        *("[1, 2, 03]", "[1, 2, +3]", "[1, 2, .3]", "[1, 2, 3.]", "[1, 2, 3e]", "[1, 2, 3e+]"),
        *(
            "[1, 2, -]",
            "[1, 2, 0x3]",
            "[1, 2, 1_000]",
            "[1, 2, NaN]",
            "[1, 2, true]",
            '[1, 2, "3"]',
        ),
        *(
            "[1, 2, [3]]",
            "[[1, 2, 3]]",
            "[]",
            "[ ]",
            "[1, 2, 1e39]",
            "[1, 2, 1e999]",
            "[1, 2, 1e-40]",
        ),
        *("[1, 2, 16777217.0]", "[1, 2, 3\v]", "[1, 2, 3\0]", "[1, 2, ٣]", "[1, 2, 1e1000000000]"),
        *("[1, 2, 18446744073709551617]", "[1, 2, 0.18446744073709551617]"),
        *("[1, 2, 1e18446744073709551617]", "[1, 2, 1e-18446744073709551617]"),
    ],
)
def test_it_stands_back_from_what_is_odd(text: str) -> None:
    assert read("[1, 2, 3]", 3) == [1, 2, 3]
    assert read(text, 3) is None


@given(st.binary(max_size=60) | st.text("0123456789.,-+eE[] \n", max_size=60).map(str.encode))
def test_no_bytes_upset_it(body: bytes) -> None:
    assert decimals.floats is not None
    for start in (-1, 0, len(body) - 1, len(body), 1 << 62):
        for count in (-1, 0, 1, 2, 5, 1 << 62):
            found = decimals.floats(body, start, count)
            if found is not None:
                raw, end = found
                assert same(np.frombuffer(raw, np.float32).tolist(), json.loads(body[start:end]))


def _hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("compile_hook", ROOT / "requirements/compile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_install_without_a_compiler_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = _hook()
    source, target = ROOT / hook.SOURCE, tmp_path / "made.so"
    assert hook.compiled(source, target) is None
    assert target.stat().st_size > 0
    broken = tmp_path / "broken.c"
    broken.write_text("#include <no-such-header.h>\n")
    assert "no-such-header.h" in hook.compiled(broken, tmp_path / "other.so")
    monkeypatch.setenv("LDSHARED", "no-such-compiler -shared")
    assert "no-such-compiler" in hook.compiled(source, tmp_path / "third.so")
    assert {each.name for each in tmp_path.iterdir()} == {"made.so", "broken.c"}
