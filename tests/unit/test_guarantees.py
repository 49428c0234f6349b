"""Each promise of ``docs/guarantees.md`` names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/guarantees.md"
CONTRACT = ROOT / "adapters/windlass_adapters/testing/contract.py"
NAMED = re.compile(r"`([^`]+)`")
PIECE = re.compile(r"[a-z]+(_[a-z]+)+$")


def promises() -> list[tuple[str, str]]:
    """What is promised and what shows it, of each table that ends in ``shown by``."""
    found, shows = [], False
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            shows = False
        elif cells[-1] == "shown by":
            shows = True
        elif shows and set(cells[-1]) != {"-"}:
            found.append((cells[0], cells[-1]))
    return found


def names_of_tests(file: Path) -> str:
    """The names of the tests in a file; those of the contract too, where it is kept there."""
    text = file.read_text()
    if "testing.contract import" in text:
        text += CONTRACT.read_text()
    return " ".join(re.findall(r"def (test_\w+)", text))


def named_in(shown: str) -> dict[str, list[str]]:
    """Pieces of names of tests, by the file after whose name they stand."""
    found: dict[str, list[str]] = {}
    file = ""
    for name in NAMED.findall(shown):
        if name.endswith(".py"):
            file = name
            found.setdefault(file, [])
        elif file and PIECE.match(name):
            found[file].append(name)
    return found


def test_the_page_holds_promises() -> None:
    assert len(promises()) > 30


@pytest.mark.parametrize(("promise", "shown"), promises(), ids=lambda text: text[:60])
def test_a_promise_names_tests_that_are_there(promise: str, shown: str) -> None:
    named = named_in(shown)
    assert named, f"nothing shows it: {promise}"
    for path, pieces in named.items():
        file = ROOT / path
        assert file.is_file(), f"{path} is not there; it shows: {promise}"
        assert pieces, f"which test of {path} shows it: {promise}"
        names = names_of_tests(file)
        missing = [piece for piece in pieces if piece not in names]
        assert not missing, f"{path} has no test {missing}; they show: {promise}"
