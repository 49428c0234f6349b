"""Commits that no porcelain would make: any names, any modes, any order, any depth."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gitrepo import GitRepo, git_environment
from rig.fuzzing import few, seeds
from windlass.sources.base import SourceUnavailableError
from windlass.sources.namedfiles import hash_only
from windlass.sources.opening import open_source
from windlass_schemas import key_of

_MODES = [b"100644", b"100755", b"120000", b"160000", b"40000", b"100664", b"0", b"777777"]
_PLAIN = (b"a.yaml", b"b.yml", b"train.py", b".windlassignore", b".git", b"..", b".", b"dir")
_ODD = (b"\xff\xfe.yaml", b"a\nb.yaml", b"\xe2\x80\xa8.yaml", b"-x.yaml", b" .yaml", b"x" * 300)
_NAMES = st.sampled_from([*_PLAIN, *_ODD]) | st.binary(min_size=1, max_size=8).map(
    lambda b: b.replace(b"/", b"_").replace(b"\0", b"_")
)
_BLOBS = st.sampled_from([*seeds("yaml"), *seeds("ignore"), b"", b"../../etc/passwd", b"\0"])

Tree = list[tuple[bytes, bytes, "bytes | Tree"]]
"""Mode, name, and content or a tree."""


def _entries(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.lists(st.tuples(st.sampled_from(_MODES), _NAMES, inner), max_size=5)


_trees = _entries(st.recursive(_BLOBS, _entries, max_leaves=8))


class Plumbing:
    """A repository into which objects are written as they are."""

    def __init__(self, path: Path) -> None:
        self.repository = GitRepo(path)

    def put(self, kind: str, data: bytes) -> str:
        """Write one object, without a look at its sense."""
        done = subprocess.run(
            ["git", "hash-object", "-t", kind, "-w", "--stdin", "--literally"],
            cwd=self.repository.path,
            input=data,
            capture_output=True,
            check=True,
            timeout=30,
            env=git_environment(),
        )
        return done.stdout.decode().strip()

    def tree(self, tree: object) -> str:
        """Write a tree with all that is below it."""
        assert isinstance(tree, list)
        raw = b""
        for mode, name, below in tree:
            if isinstance(below, list):
                mode, id_ = (mode if mode in (b"40000", b"0") else b"40000"), self.tree(below)
            elif mode == b"160000":
                id_ = hashlib.sha1(below).hexdigest()
            else:
                id_ = self.put("blob", below)
            raw += mode + b" " + name + b"\0" + bytes.fromhex(id_)
        return self.put("tree", raw)

    def commit(self, tree: str) -> None:
        """Let HEAD name a commit of that tree."""
        commit = self.repository.git("commit-tree", tree, "-m", "odd")
        self.repository.git("update-ref", "HEAD", commit)


async def _read(path: Path) -> None:
    source = await open_source(path, worktree=False, keep=hash_only)
    try:
        async with asyncio.timeout(20):
            snapshot = await source.read()
    except SourceUnavailableError:
        return
    keys = [key_of(document.resource) for document in snapshot.documents]
    assert len(keys) == len(set(keys))
    for fault in snapshot.faults:
        str(fault).encode()  # what is told to people can be written down
    for note in source.notes():
        note.encode()


@few
@given(_trees)
def test_any_commit_is_read_or_refused(tree: object) -> None:
    """Never a crash, never a hang, never a key twice, never a message that cannot be printed."""
    with tempfile.TemporaryDirectory() as folder:
        plumbing = Plumbing(Path(folder) / "repo")
        plumbing.commit(plumbing.tree(tree))
        asyncio.run(_read(plumbing.repository.path))
