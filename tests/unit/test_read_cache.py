"""What was read of spec files outlives the reader, and is believed only where it must be true."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from gitrepo import GitRepo
from specs_text import Keeper, job
from windlass.sources import readcache
from windlass.sources.gittree import Blobs, GitTree, Listings
from windlass.sources.loader import Loaded, Loader, Lookup
from windlass.sources.opening import open_source
from windlass.sources.readcache import ReadCache
from windlass.store.base import Snapshot
from windlass_schemas import Resource

TARGET = """\
apiVersion: windlass/v1
kind: Target
metadata:
  name: local
spec:
  adapter: local
  params:
    port: {port}
"""


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    repo = GitRepo(tmp_path / "specs")
    repo.write("a.yaml", job("a", "command: [x]"))
    repo.write("b.yaml", job("b", "command: [x]") + "---\n" + job("c"))
    repo.commit()
    return repo


def read(repo: GitRepo) -> tuple[Loaded, int]:
    """A new loader reads HEAD; what it found, and how many files it parsed."""
    loader = Loader(Keeper(), cache=ReadCache(repo.path.parent / "read.db"))
    listing = repo.git("ls-tree", "-r", "-z", "--full-tree", "HEAD").encode()
    blobs = Blobs(repo.path)
    try:
        loaded = loader.load(GitTree(Listings().read(listing), blobs))
        loader.remember()
        return loaded, loader.parses
    finally:
        blobs.close()


def test_a_new_reader_parses_nothing_that_an_older_one_has_read(repo: GitRepo) -> None:
    first, parsed = read(repo)
    assert parsed == 2
    again, parsed = read(repo)
    assert parsed == 0
    assert again == first
    assert [d.canonical for d in again.documents] == [d.canonical for d in first.documents]


def test_only_what_has_changed_is_parsed(repo: GitRepo) -> None:
    read(repo)
    repo.write("a.yaml", job("a", "command: [y]"))
    repo.commit()
    loaded, parsed = read(repo)
    assert parsed == 1
    assert [d.key.name for d in loaded.documents] == ["a", "b", "c"]
    assert read(repo)[1] == 0


class Checker:
    """A check that finds nothing wrong but with one, and notes what it was asked."""

    def __init__(self, refuses: str = "") -> None:
        self.asked: list[str] = []
        self._refuses = refuses

    def __call__(self, resource: Resource, _lookup: Lookup) -> Iterator[tuple[str, str]]:
        self.asked.append(resource.metadata.name)
        if resource.metadata.name == self._refuses:
            yield "spec", "is not liked"


def checked(repo: GitRepo, check: Checker, code: str = "") -> tuple[list[str], list[str]]:
    """A new loader checks HEAD: what it asked about, and what it has refused."""
    check.asked.clear()
    loader = Loader(Keeper(), check, cache=ReadCache(repo.path.parent / "read.db", code))
    listing = repo.git("ls-tree", "-r", "-z", "--full-tree", "HEAD").encode()
    blobs = Blobs(repo.path)
    try:
        loaded = loader.load(GitTree(Listings().read(listing), blobs))
        loader.remember()
    finally:
        blobs.close()
    return check.asked, [str(fault.key) for fault in loaded.faults]


def test_what_was_good_is_not_checked_again_and_what_was_not_is(repo: GitRepo) -> None:
    check = Checker(refuses="c")
    assert checked(repo, check) == (["a", "b", "c"], ["Job/default/c"])
    assert checked(repo, check) == (["b", "c"], ["Job/default/c"])  # they share a file
    repo.write("a.yaml", job("a", "command: [y]"))
    repo.commit()
    assert checked(repo, check) == (["a", "b", "c"], ["Job/default/c"])
    assert checked(repo, Checker()) == (["b", "c"], [])
    assert checked(repo, Checker()) == ([], [])


def test_other_targets_and_other_code_check_everything_anew(repo: GitRepo) -> None:
    repo.write("t.yaml", TARGET.format(port=1))
    repo.commit()
    everything = ["a", "b", "c", "local"]
    assert checked(repo, Checker(), "code") == (everything, [])
    assert checked(repo, Checker(), "code") == ([], [])
    repo.write("t.yaml", TARGET.format(port=2))
    repo.commit()
    assert checked(repo, Checker(), "code") == (everything, [])
    assert checked(repo, Checker(), "other") == (everything, [])
    assert checked(repo, Checker(), "other") == ([], [])


def test_a_row_that_is_not_what_was_written_is_not_believed(repo: GitRepo) -> None:
    first, _ = read(repo)
    with closing(sqlite3.connect(repo.path.parent / "read.db")) as connection, connection:
        changed = "UPDATE read SET specs = replace(specs, 'command', 'commend')"
        assert connection.execute(changed).rowcount == 2
    again, parsed = read(repo)
    assert (again, parsed) == (first, 2)


def test_a_file_that_is_gone_is_forgotten(repo: GitRepo) -> None:
    text = (repo.path / "a.yaml").read_text()
    read(repo)
    (repo.path / "a.yaml").unlink()
    repo.commit()
    assert [d.key.name for d in read(repo)[0].documents] == ["b", "c"]
    repo.write("a.yaml", text)
    repo.commit()
    assert read(repo)[1] == 1


def test_a_link_with_the_bytes_of_a_spec_is_no_spec(repo: GitRepo) -> None:
    """In git both have one identity: that of the bytes."""
    read(repo)
    file = repo.path / "a.yaml"
    text = file.read_text()
    file.unlink()
    file.symlink_to(text)
    repo.commit()
    loaded, _ = read(repo)
    assert [d.key.name for d in loaded.documents] == ["b", "c"]
    assert [fault.path for fault in loaded.faults] == ["a.yaml"]


def test_faults_are_found_again_each_time_and_at_their_places(repo: GitRepo) -> None:
    repo.write("bad.yaml", job("bad", "command: [x]\n  zzz: 1"))
    repo.write("twice.yaml", job("a", "command: [x]"))
    repo.commit()
    first, _ = read(repo)
    again, parsed = read(repo)
    assert parsed == 1  # the one that is faulty by itself
    assert [str(f) for f in again.faults] == [str(f) for f in first.faults]
    assert any("declared in" in str(fault) for fault in again.faults)


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


def _overwrite(file: Path) -> None:
    file.write_bytes(b"no database at all " * 400)


@pytest.mark.parametrize("damage", [_cut, _overwrite, Path.unlink])
def test_a_damaged_or_missing_file_costs_time_and_nothing_else(
    repo: GitRepo, damage: Callable[[Path], None]
) -> None:
    first, _ = read(repo)
    file = repo.path.parent / "read.db"
    for extra in file.parent.glob("read.db-*"):
        extra.unlink()
    damage(file)
    again, parsed = read(repo)
    assert (again, parsed) == (first, 2)
    assert read(repo)[1] == 0


def test_other_code_reads_everything_itself(repo: GitRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    read(repo)
    monkeypatch.setattr(readcache, "_code", lambda: "another release")
    assert read(repo)[1] == 2
    assert read(repo)[1] == 0


def test_a_folder_that_takes_no_file_costs_time_and_nothing_else(repo: GitRepo) -> None:
    (repo.path.parent / "read.db").mkdir()
    assert read(repo)[1] == 2
    assert read(repo)[1] == 2


async def test_what_was_read_is_kept_after_it_was_handed_over(repo: GitRepo) -> None:
    file = repo.path.parent / "read.db"
    source = await open_source(repo.path, worktree=False, keep=Keeper(), cache=ReadCache(file))
    handed = source.snapshots()
    first = await anext(handed)
    assert isinstance(first, Snapshot)
    assert len(first.documents) == 3
    assert read_rows(file) == 0
    following = asyncio.ensure_future(anext(handed))
    async with asyncio.timeout(20):
        while read_rows(file) == 0:
            await asyncio.sleep(0.01)
    following.cancel()
    await asyncio.wait([following])
    assert read(repo)[1] == 0


def read_rows(file: Path) -> int:
    """How many files the cache holds."""
    if not file.exists():
        return 0
    with closing(sqlite3.connect(file)) as connection:
        found = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'read'")
        if found.fetchone() == (0,):
            return 0
        count: int = connection.execute("SELECT count(*) FROM read").fetchone()[0]
        return count


def test_a_line_that_was_read_before_is_not_read_again(repo: GitRepo) -> None:
    def listing() -> bytes:
        return repo.git("ls-tree", "-r", "-z", "--full-tree", "HEAD").encode()

    listings = Listings()
    first = listings.read(listing())
    repo.write("a.yaml", job("a", "command: [y]"))
    (repo.path / "b.yaml").unlink()
    repo.write("c.yaml", job("c", "command: [y]"))
    repo.write("d.txt", "kept")
    repo.commit()
    second = listings.read(listing())
    assert second == Listings().read(listing())
    assert sorted(second) == ["a.yaml", "c.yaml", "d.txt"]
    assert second["a.yaml"] != first["a.yaml"]
    repo.write("e.yaml", job("e"))
    repo.commit()
    third = listings.read(listing())
    assert all(third[path] is second[path] for path in second)
