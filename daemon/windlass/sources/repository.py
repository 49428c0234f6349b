"""A git repository: which commit HEAD names, what it holds, what is not committed (hop 1)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from windlass.sources.base import SourceUnavailableError
from windlass.sources.gitcommand import GitError, run_git

MAX_LISTED = 5

MAX_SMALL = 1 << 16
"""Characters read of a file that git keeps small."""

_SHORT = 10
_NO_FOLDER = ("does not exist in", "Not a valid object", "not a tree object")
_FILTER = re.compile(r"^filter\.(.+)\.[^.]+$")


@dataclass(frozen=True)
class Commit:
    """The revision that HEAD names."""

    id: str
    author: str

    @property
    def short(self) -> str:
        return self.id[:_SHORT]


@dataclass(frozen=True)
class Repository:
    """A folder inside a git work tree."""

    top: Path
    """The work tree's root."""
    git_dir: Path
    common_dir: Path
    """Equal to ``git_dir``, except in a linked work tree."""
    prefix: str
    """The folder inside the work tree, with ``/`` between names; empty for the root."""

    @property
    def folder(self) -> Path:
        """The followed folder in the work tree."""
        return self.top / self.prefix

    def stamp(self) -> tuple[str, ...]:
        """A few small files that change whenever HEAD names another commit. Blocking, cheap."""
        head = _text(self.git_dir / "HEAD")
        parts = [head]
        name = _ref(head)
        if name:
            parts += [_text(self.git_dir / name), _text(self.common_dir / name)]
            parts.append(_times(self.common_dir / "packed-refs"))
            parts.append(_text(self.common_dir / "reftable" / "tables.list"))
        parts.append(_times(self.common_dir / "config"))
        return tuple(parts)

    def watched(self) -> list[Path]:
        """Folders where git writes when HEAD moves."""
        folders = [self.git_dir, self.git_dir / "logs", self.common_dir]
        folders += [self.common_dir / "refs" / "heads", self.common_dir / "reftable"]
        head = _text(self.git_dir / "HEAD")
        if _ref(head):
            folders.append((self.common_dir / _ref(head)).parent)
        return sorted({folder for folder in folders if folder.is_dir()})

    async def head(self) -> Commit:
        """The commit of HEAD. Raises SourceUnavailableError."""
        found = await run_git(self.top, "cat-file", "--batch", asked=b"HEAD^{commit}\n")
        header, _, text = found.partition(b"\n")
        name, _, kind = header.partition(b" ")
        if not kind.startswith(b"commit "):
            raise await self._no_commit()
        return Commit(name.decode(), _author(text))

    async def _no_commit(self) -> SourceUnavailableError:
        """Why HEAD names no commit."""
        try:
            await run_git(self.top, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        except GitError as error:
            if error.said.strip():
                return error
        return SourceUnavailableError(
            f"{self.top} has no commit yet; run git add and git commit, or start with --worktree"
        )

    async def listing(self, commit: Commit) -> bytes:
        """The files of the folder at a commit, as ``git ls-tree -r -z``."""
        tree = f"{commit.id}:{self.prefix}"
        try:
            return await run_git(self.top, "ls-tree", "-r", "-z", "--full-tree", tree)
        except GitError as error:
            if not any(said in error.said for said in _NO_FOLDER):
                raise
            raise SourceUnavailableError(
                f"{self.prefix} is no folder at commit {commit.short}; run git add and git commit,"
                " or start with --worktree. Nothing is removed meanwhile"
            ) from error

    async def uncommitted(self) -> tuple[str, ...]:
        """Files below the folder that differ from HEAD, by their path in the folder."""
        options: list[str] = []
        for name in await self._filters():
            for setting in ("clean=", "smudge=", "process=", "required=false"):
                options += ["-c", f"filter.{name}.{setting}"]
        where = [self.prefix] if self.prefix else ["."]
        listing = await run_git(
            self.top, *options, "status", "--porcelain=v1", "-z", "--no-renames",
            "--untracked-files=normal", "--ignore-submodules=all", "--", *where,
        )  # fmt: skip
        start = f"{self.prefix}/" if self.prefix else ""
        paths = [line[3:].decode(errors="replace") for line in listing.split(b"\0") if line]
        return tuple(path.removeprefix(start) for path in paths)

    async def _filters(self) -> set[str]:
        """Content filters in the configuration: programs that must not run for a look."""
        try:
            listing = await run_git(
                self.top, "config", "--name-only", "-z", "--get-regexp", r"^filter\."
            )
        except GitError:
            return set()  # none is configured
        names = listing.decode(errors="replace").split("\0")
        return {found.group(1) for name in names if (found := _FILTER.match(name))}


async def find_repository(folder: Path) -> Repository:
    """The repository of a folder in a work tree. Raises GitError."""
    options = ("--show-toplevel", "--absolute-git-dir", "--git-common-dir")
    said = await run_git(folder, "rev-parse", *options)
    lines = os.fsdecode(said).removesuffix("\n").split("\n")
    if len(lines) != len(options):
        raise GitError(f"{folder} has a line break in its path; rename the folder")
    top, git_dir, common_dir = (folder / line for line in lines)  # the last may be relative
    prefix = folder.relative_to(top).as_posix()
    return Repository(top, git_dir, common_dir.resolve(), "" if prefix == "." else prefix)


def _author(commit: bytes) -> str:
    header = commit.partition(b"\n\n")[0].decode(errors="replace")
    line = next((line for line in header.split("\n") if line.startswith("author ")), "author ?")
    return line.removeprefix("author ").rsplit(" ", 2)[0]


def _ref(head: str) -> str:
    """The ref that a HEAD file names; empty when it names a commit."""
    name = head.removeprefix("ref: ").strip()
    return name if name.startswith("refs/") and ".." not in name else ""


def _text(path: Path) -> str:
    try:
        with path.open(errors="replace") as file:
            return file.read(MAX_SMALL)
    except OSError:
        return ""


def _times(path: Path) -> str:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return ""
    return f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"
