"""The tree of saved files: what is swapped between the look and the read never leads outside."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from windlass.sources.base import SourceUnavailableError
from windlass.sources.foldertree import FolderTree
from windlass.sources.tree import Entry, EntryKind, TreeChangedError, UnreadableError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root" / "sub"
    folder.mkdir(parents=True)
    (folder / "a.py").write_text("ours")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.py").write_text("secret")
    return tmp_path / "root"


def found(tree: FolderTree, path: str) -> Entry:
    entry = tree.find(path)
    assert entry is not None
    return entry


def read(tree: FolderTree, entry: Entry) -> bytes:
    with tree.open(entry) as stream:
        return stream.read()


def test_a_file_is_read(root: Path) -> None:
    tree = FolderTree(root)
    assert read(tree, found(tree, "sub/a.py")) == b"ours"
    assert found(tree, "sub").kind is EntryKind.FOLDER
    assert tree.find("sub/b.py") is None
    assert tree.find("nope/b.py") is None


def test_a_file_swapped_for_a_link_is_not_read(root: Path) -> None:
    tree = FolderTree(root)
    entry = found(tree, "sub/a.py")
    (root / "sub/a.py").unlink()
    (root / "sub/a.py").symlink_to(root.parent / "outside/a.py")
    with pytest.raises(UnreadableError, match="symlink"):
        read(tree, entry)


def test_a_folder_swapped_for_a_link_is_not_entered(root: Path) -> None:
    tree = FolderTree(root)
    entry = found(tree, "sub/a.py")
    shutil.rmtree(root / "sub")
    (root / "sub").symlink_to(root.parent / "outside")
    with pytest.raises(UnreadableError, match="symlink"):
        read(tree, entry)
    assert found(tree, "sub/a.py").kind is EntryKind.SYMLINK
    assert [below.kind for below in tree.walk(lambda _: True)] == [EntryKind.SYMLINK]


def test_a_file_swapped_for_a_fifo_or_another_file_is_not_read(root: Path) -> None:
    tree = FolderTree(root)
    entry = found(tree, "sub/a.py")
    (root / "sub/a.py").unlink()
    os.mkfifo(root / "sub/a.py")
    with pytest.raises(TreeChangedError):
        read(tree, entry)
    (root / "sub/a.py").unlink()
    (root / "sub/a.py").write_text("else")
    with pytest.raises(TreeChangedError):
        read(tree, entry)


def test_a_file_that_changes_while_it_is_read_is_told(root: Path) -> None:
    tree = FolderTree(root)
    entry = found(tree, "sub/a.py")

    def read_while_it_grows() -> None:
        with tree.open(entry) as stream:
            stream.read(1)
            with (root / "sub/a.py").open("a") as file:
                file.write("more")

    with pytest.raises(TreeChangedError):
        read_while_it_grows()


def test_a_file_that_is_gone_at_the_read_is_told(root: Path) -> None:
    tree = FolderTree(root)
    entry = found(tree, "sub/a.py")
    shutil.rmtree(root / "sub")
    with pytest.raises(TreeChangedError):
        read(tree, entry)


def test_no_descriptor_is_left_open(root: Path) -> None:
    tree = FolderTree(root)
    entry = found(tree, "sub/a.py")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        read(tree, entry)
        list(tree.walk(lambda _: True))
        tree.find("sub/a.py/x")
        tree.find("nope/x/y")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_root_that_is_gone_makes_the_source_unavailable(root: Path) -> None:
    shutil.rmtree(root)
    with pytest.raises(SourceUnavailableError, match="put the folder back"):
        list(FolderTree(root).walk(lambda _: True))
    with pytest.raises(SourceUnavailableError, match="put the folder back"):
        FolderTree(root).find("a")
