"""The tree port: the files of one source at one revision, for the loader (hop 1).

A tree never follows a symlink, never blocks on a FIFO, and never gives bytes from outside its root.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from io import BufferedReader
from typing import Protocol

MAX_FILES = 200_000
"""Files that are looked at in one source."""
MAX_FOLDERS_DEEP = 64


ODD_NAME = "whose name holds bytes that nobody can read or type; rename the file"

_ODD = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def is_odd_name(path: str) -> bool:
    """Whether a path holds control characters, or bytes that are not UTF-8."""
    return _ODD.search(path) is not None


def readable_name(path: str) -> str:
    """An odd path as it may stand in a message."""
    return _ODD.sub("?", path)


class UnreadableError(Exception):
    """One entry cannot be read. The message says why and what to do."""


class TreeChangedError(Exception):
    """A file changed between the look and the read: look again."""


class EntryKind(StrEnum):
    """What lies at a path; the value is what messages call it."""

    FILE = "a file"
    FOLDER = "a folder"
    SYMLINK = "a symlink"
    SUBMODULE = "a submodule"
    SPECIAL = "a FIFO, socket or device"
    UNREADABLE = "not readable"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing in a tree."""

    path: str
    """Relative to the root, with ``/``."""
    kind: EntryKind
    identity: str = ""
    """Equal for equal content, wherever ``settled`` holds."""
    settled: bool = True
    """False when the file is so young that its identity cannot prove that nothing changed."""
    message: str = ""
    """Why it is not readable."""


class Tree(Protocol):
    """Files below a root at one revision."""

    @abstractmethod
    def walk(self, enter: Callable[[str], bool], start: str = "") -> Iterator[Entry]:
        """Everything but folders, below ``start``; ``enter`` says of each folder if to look in."""

    @abstractmethod
    def find(self, path: str) -> Entry | None:
        """What lies at a path; the symlink or file on the way there, if that ends the way."""

    def expect(self, entries: Sequence[Entry]) -> None:
        """A hint: these will be opened next, in this order."""
        return

    @abstractmethod
    def open(self, entry: Entry) -> AbstractContextManager[BufferedReader]:
        """Read a file. Raises UnreadableError, TreeChangedError, SourceUnavailableError."""
