"""Files that a spec names (``entrypoint: train.py``), read at its revision and kept (hop 1)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

from windlass.sources.base import SourceUnavailableError
from windlass.sources.specfile import Spec
from windlass.sources.tree import Entry, EntryKind, Tree, UnreadableError
from windlass.store.base import Fault
from windlass_schemas import Artifact

Keep = Callable[[BinaryIO, str], Artifact]
"""Keeps what a stream gives, under its digest; the text is the file's own name."""

MAX_REMEMBERED = 100_000
MAX_IN_FOLDER = 10_000
_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_LFS = b"version https://git-lfs.github.com/spec/"
_SKIPPED = (".git", "__pycache__")


@dataclass
class _Reading:
    """One load: what has been resolved so far."""

    tree: Tree
    paths: dict[str, str] = field(default_factory=dict)
    """Named path to the digest of what lies there."""
    asked: set[str] = field(default_factory=set)


class NamedFiles:
    """Resolves the paths in specs to kept artifacts, and keeps each content once."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._kept: dict[str, Artifact] = {}
        self._reading: _Reading | None = None
        self.paths: dict[str, str] = {}
        """Path in the source to digest, of the files that the last load kept."""
        self._asked: set[str] = set()

    def survey(self, tree: Tree) -> Iterator[Entry]:
        """What lies now at the paths that the last load asked for."""
        for path in sorted(self._asked):
            entry = tree.find(path)
            if entry is None:
                continue
            if entry.kind is EntryKind.FOLDER:
                yield from sorted(tree.walk(_enters, path), key=lambda e: e.path)
            else:
                yield entry

    def covers(self, path: str) -> bool:
        """Whether a spec named that file at the last load, itself or by its folder."""
        return path in self.paths

    @contextmanager
    def reading(self, tree: Tree) -> Iterator[None]:
        """Resolve against that tree; afterwards ``paths`` holds what was asked for."""
        self._reading = _Reading(tree)
        yield
        self.paths, self._asked = self._reading.paths, self._reading.asked
        self._reading = None

    def resolve(self, spec: Spec) -> tuple[dict[str, Artifact], list[Fault]]:
        """Keep all files that a spec names, by path beside the document."""
        files: dict[str, Artifact] = {}
        faults: list[Fault] = []
        folder = spec.path.rpartition("/")[0]
        for field_name, path in spec.resource.spec.named_files():
            whole = f"{folder}/{path}" if folder else path
            try:
                for entry in self._entries(whole):
                    files[entry.path[len(folder) + 1 :] if folder else entry.path] = self._artifact(
                        entry
                    )
            except UnreadableError as error:
                faults.append(spec.fault(field_name, f"{path} {error}"))
        return files, faults

    def _entries(self, path: str) -> list[Entry]:
        """The regular files that a path means: itself, or all below it."""
        reading = self._now()
        reading.asked.add(path)
        entry = reading.tree.find(path)
        if entry is None:
            raise UnreadableError("does not exist at this revision; add the file or mend the path")
        if entry.kind is not EntryKind.FOLDER:
            _require_file(entry, path)
            return [entry]
        found = []
        for below in reading.tree.walk(_enters, path):
            _require_file(below, path)
            found.append(below)
            if len(found) > MAX_IN_FOLDER:
                raise UnreadableError(
                    f"holds more than {MAX_IN_FOLDER} files; name a smaller folder"
                )
        if not found:
            raise UnreadableError("is an empty folder; put a file into it or name another one")
        return sorted(found, key=lambda e: e.path)

    def _artifact(self, entry: Entry) -> Artifact:
        name = entry.path.rpartition("/")[2]
        known = self._kept.get(entry.identity) if entry.settled else None
        if known is None:
            known = self._keep_entry(entry, name)
            if len(self._kept) >= MAX_REMEMBERED:
                self._kept.clear()
            self._kept[entry.identity] = known
        self._now().paths[entry.path] = known.digest
        return known if known.name == name else known.model_copy(update={"name": name})

    def _keep_entry(self, entry: Entry, name: str) -> Artifact:
        try:
            with self._now().tree.open(entry) as stream:
                if stream.peek(len(_LFS))[: len(_LFS)] == _LFS:
                    raise UnreadableError(
                        "is a Git LFS pointer and not the file itself; commit the file without"
                        " LFS, or run git lfs pull and start with --worktree"
                    )
                return self._keep(stream, name)
        except OSError as error:
            if error.errno in _STORAGE:
                raise SourceUnavailableError(
                    f"{entry.path} cannot be kept ({error.strerror}); make room in the state folder"
                ) from error
            raise UnreadableError(
                f"cannot be read ({error.strerror}); mend the file or its rights"
            ) from error

    def _now(self) -> _Reading:
        if self._reading is None:
            raise RuntimeError("resolve() is used inside reading()")
        return self._reading


def _enters(folder: str) -> bool:
    return folder.rpartition("/")[2] not in _SKIPPED


def _require_file(entry: Entry, named: str) -> None:
    if entry.kind is EntryKind.FILE and (entry.path == named or entry.path.startswith(named + "/")):
        return
    if entry.kind is EntryKind.UNREADABLE:
        raise UnreadableError(entry.message)
    if entry.kind is EntryKind.FILE:
        raise UnreadableError(f"does not exist: {entry.path} is a file; mend the path")
    advice = "commit the files themselves" if entry.kind is EntryKind.SUBMODULE else "use a copy"
    where = "" if entry.path == named else f"leads to {entry.path}, which "
    raise UnreadableError(f"{where}is {entry.kind} and is not read; {advice}")
