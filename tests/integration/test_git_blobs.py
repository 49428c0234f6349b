"""Reading git's objects: asked for ahead, and read in whatever order they are wanted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gitrepo import GitRepo
from windlass.sources.gittree import Blobs
from windlass.sources.tree import UnreadableError

COUNT = 500


@pytest.fixture
def contents(tmp_path: Path) -> dict[str, bytes]:
    """Objects of many sizes by name, one of them larger than any pipe."""
    repository = GitRepo(tmp_path / "repo")
    for i in range(COUNT):
        repository.write(f"f{i:03}", f"{i}\n" * (i if i != 250 else 100_000))
    repository.commit()
    lines = repository.git("ls-tree", "HEAD").splitlines()
    return {line.split()[2]: (tmp_path / "repo" / line.split()[3]).read_bytes() for line in lines}


@pytest.fixture
def blobs(tmp_path: Path, contents: dict[str, bytes]) -> Iterator[Blobs]:
    found = Blobs(tmp_path / "repo")
    yield found
    found.close()


def read(blobs: Blobs, name: str) -> bytes:
    with blobs.open(name) as stream:
        return stream.read()


def test_objects_come_in_the_order_that_was_foretold(
    blobs: Blobs, contents: dict[str, bytes]
) -> None:
    """Each one is the one that was asked for."""
    blobs.expect(contents)
    assert {name: read(blobs, name) for name in contents} == contents


def test_a_hint_that_was_wrong_changes_nothing_but_the_time(
    blobs: Blobs, contents: dict[str, bytes]
) -> None:
    """Skipped, unforeseen and missing objects, and a second hint in the middle."""
    names = list(contents)
    blobs.expect([*names[:10], "0" * 40, *names[10:]])
    assert read(blobs, names[0]) == contents[names[0]]
    assert read(blobs, names[-1]) == contents[names[-1]]
    with pytest.raises(UnreadableError):
        read(blobs, "0" * 40)
    blobs.expect(names[200:300])
    for name in names[240:260]:
        assert read(blobs, name) == contents[name]
    with blobs.open(names[261]) as stream:
        assert stream.read(1) == contents[names[261]][:1]  # the rest is not wanted
    assert read(blobs, names[262]) == contents[names[262]]
