"""Files that a spec names (``entrypoint: train.py``), read at its revision and kept (hop 1)."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import BinaryIO

from windlass.sources.base import SourceUnavailableError
from windlass.sources.specfile import Spec
from windlass.sources.tree import (
    ODD_NAME,
    Entry,
    EntryKind,
    Tree,
    UnreadableError,
    is_odd_name,
    readable_name,
)
from windlass.store.base import Fault
from windlass_schemas import Artifact

Keep = Callable[[BinaryIO, str], Artifact]
"""Keeps what a stream gives, under its digest; the text is the file's own name."""

Resolved = tuple[Spec, Mapping[str, Artifact]]
"""A spec and the files that it names, by path beside the document."""

NO_FILES: Mapping[str, Artifact] = {}
MAX_REMEMBERED = 100_000
MAX_IN_FOLDER = 10_000
_STORAGE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_LFS = b"version https://git-lfs.github.com/spec/"
_SKIPPED = (".git", "__pycache__")


def hash_only(stream: BinaryIO, name: str) -> Artifact:
    """A ``Keep`` that keeps nothing: for looking at specs without a daemon."""
    hasher, size = hashlib.sha256(), 0
    while chunk := stream.read(1 << 20):
        hasher.update(chunk)
        size += len(chunk)
    return Artifact(digest="sha256:" + hasher.hexdigest(), size=size, name=name)


class NamedFiles:
    """Resolves the paths in specs to kept artifacts, and keeps each content once."""

    def __init__(self, keep: Keep) -> None:
        self.paths: dict[str, str] = {}
        """Path in the source to digest, of the files that the last load kept."""
        self._keep = keep
        self._kept: dict[str, Artifact] = {}
        self._asked: set[str] = set()

    def survey(self, tree: Tree) -> Iterator[Entry]:
        """What lies now at the paths that the last load asked for."""
        for path in sorted(self._asked):
            entry = tree.find(path)
            if entry is not None and entry.kind is EntryKind.FOLDER:
                yield from sorted(tree.walk(_enters, path), key=lambda e: e.path)
            elif entry is not None:
                yield entry

    def resolve(self, tree: Tree, specs: Iterable[Spec]) -> tuple[list[Resolved], list[Fault]]:
        """Keep all files that the specs name; a spec with a fault is left out."""
        self.paths, self._asked = {}, set()
        resolved: list[Resolved] = []
        faults: list[Fault] = []
        for spec in specs:
            if not spec.named:
                resolved.append((spec, NO_FILES))
                continue
            files, wrong = self._resolve(tree, spec)
            faults += wrong
            if not wrong:
                resolved.append((spec, files))
        return resolved, faults

    def _resolve(self, tree: Tree, spec: Spec) -> tuple[dict[str, Artifact], list[Fault]]:
        files: dict[str, Artifact] = {}
        faults: list[Fault] = []
        folder = spec.path.rpartition("/")[0]
        start = f"{folder}/" if folder else ""
        for field, path in spec.named:
            try:
                for entry in self._entries(tree, start + path):
                    files[entry.path.removeprefix(start)] = self._artifact(tree, entry)
            except UnreadableError as error:
                faults.append(spec.fault(field, f"{path} {error}"))
        return files, faults

    def _entries(self, tree: Tree, path: str) -> list[Entry]:
        """The regular files that a path means: itself, or all below it."""
        self._asked.add(path)
        entry = tree.find(path)
        if entry is None:
            raise UnreadableError("does not exist at this revision; add the file or mend the path")
        if entry.kind is not EntryKind.FOLDER:
            _require_file(entry, path)
            return [entry]
        found = []
        for below in tree.walk(_enters, path):
            _require_file(below, path)
            found.append(below)
            if len(found) > MAX_IN_FOLDER:
                raise UnreadableError(
                    f"holds more than {MAX_IN_FOLDER} files; name a smaller folder"
                )
        if not found:
            raise UnreadableError("is an empty folder; put a file into it or name another one")
        return sorted(found, key=lambda e: e.path)

    def _artifact(self, tree: Tree, entry: Entry) -> Artifact:
        name = entry.path.rpartition("/")[2]
        known = self._kept.get(entry.identity) if entry.settled else None
        if known is None:
            known = self._keep_entry(tree, entry, name)
            if len(self._kept) >= MAX_REMEMBERED:
                self._kept.clear()
            self._kept[entry.identity] = known
        self.paths[entry.path] = known.digest
        return known if known.name == name else known.model_copy(update={"name": name})

    def _keep_entry(self, tree: Tree, entry: Entry, name: str) -> Artifact:
        try:
            with tree.open(entry) as stream:
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


def _enters(folder: str) -> bool:
    return folder.rpartition("/")[2] not in _SKIPPED


def _require_file(entry: Entry, named: str) -> None:
    if is_odd_name(entry.path):
        raise UnreadableError(f"leads to {readable_name(entry.path)}, {ODD_NAME}")
    if entry.kind is EntryKind.FILE and (entry.path == named or entry.path.startswith(named + "/")):
        return
    if entry.kind is EntryKind.UNREADABLE:
        raise UnreadableError(entry.message)
    if entry.kind is EntryKind.FILE:
        raise UnreadableError(f"does not exist: {entry.path} is a file; mend the path")
    advice = "commit the files themselves" if entry.kind is EntryKind.SUBMODULE else "use a copy"
    where = "" if entry.path == named else f"leads to {entry.path}, which "
    raise UnreadableError(f"{where}is {entry.kind} and is not read; {advice}")
