"""A message as a tree: its document, and the files that travel with it (hop 1)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader, BytesIO, RawIOBase
from typing import cast

from windlass.sources.tree import Entry, EntryKind, Tree

DOCUMENT = "message.yaml"
"""Where the document lies in its tree, and how messages to people call it."""


class MessageTree(Tree):
    """Bytes in memory by path."""

    def __init__(self, document: bytes, files: Mapping[str, bytes]) -> None:
        self._files = {**files, DOCUMENT: document}

    def walk(self, enter: Callable[[str], bool], start: str = "") -> Iterator[Entry]:
        prefix = f"{start}/" if start else ""
        for path in sorted(self._files):
            if path.startswith(prefix) and all(enter(folder) for folder in _above(path, prefix)):
                yield self._entry(path)

    def find(self, path: str) -> Entry | None:
        if path in self._files:
            return self._entry(path)
        if any(other.startswith(f"{path}/") for other in self._files):
            return Entry(path, EntryKind.FOLDER)
        return next(
            (self._entry(above) for above in _above(path, "") if above in self._files), None
        )

    @contextmanager
    def open(self, entry: Entry) -> Iterator[BufferedReader]:
        raw = cast("RawIOBase", BytesIO(self._files[entry.path]))
        with BufferedReader(raw) as stream:
            yield cast("BufferedReader", stream)

    def _entry(self, path: str) -> Entry:
        return Entry(path, EntryKind.FILE, hashlib.sha256(self._files[path]).hexdigest())


def _above(path: str, prefix: str) -> Iterator[str]:
    """The folders on the way to a path, below a prefix."""
    parts = path.split("/")[:-1]
    for i in range(1, len(parts) + 1):
        folder = "/".join(parts[:i])
        if len(folder) >= len(prefix):
            yield folder
