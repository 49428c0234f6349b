"""``.windlassignore``: odd patterns are refused in words, and none takes for ever."""

from __future__ import annotations

import pytest

from windlass.plan.lasting import is_ignored
from windlass.sources.ignore import Ignore


@pytest.mark.parametrize("pattern", ["[z-a]", "x[9-0].yaml", "*a*a*a*a*a*b", "**/a/**/b/**/c/**/d"])
def test_a_pattern_that_no_matcher_bears_is_refused(pattern: str) -> None:
    """A range backwards has ended the daemon, and many stars have held it up for ever."""
    with pytest.raises(ValueError, match=r"range|stars"):
        Ignore(f"good.yaml\n{pattern}\n")


@pytest.mark.parametrize(
    "pattern", ["*.test.*.yaml", "# *a*b*c*d*e", "a/**/b/**/c/**", "[a-z].yaml"]
)
def test_patterns_of_every_day_are_taken(pattern: str) -> None:
    """Also stars in a comment."""
    assert Ignore(pattern).takes("specs/quite.yaml")


def test_a_bare_slash_ignores_nothing() -> None:
    """It names a field without a name; it has hidden every drift."""
    assert not is_ignored("/spec/replicas", ("/",))
    assert is_ignored("/spec/replicas", ("/spec/",))
