"""The saved files of a folder as a tree (hop 1).

Every path is walked one name at a time, relative to the open folder before it and without following
links, so that nothing that is swapped while we read can lead outside. FIFOs are opened without
blocking, and what turns out to be no regular file is not read.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from windlass.sources.base import SourceUnavailableError
from windlass.sources.tree import (
    MAX_FILES,
    MAX_FOLDERS_DEEP,
    Entry,
    EntryKind,
    Tree,
    TreeChangedError,
    UnreadableError,
)

SETTLING = 2.0
"""Seconds after which a file's times are sure to tell the next change (the coarsest are 2 s)."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class FolderTree(Tree):
    """The files below one folder, as they are now."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def walk(self, enter: Callable[[str], bool], start: str = "") -> Iterator[Entry]:
        now, seen, folders = time.time(), 0, [start]
        while folders:
            folder = folders.pop()
            try:
                with self._folder(folder) as descriptor, os.scandir(descriptor) as listing:
                    below = [
                        _entry(f"{folder}/{item.name}" if folder else item.name, item, now)
                        for item in listing
                    ]
            except OSError as error:
                if error.errno != errno.ENOENT:
                    yield _unreadable(folder, error)
                continue
            seen += len(below)
            if seen > MAX_FILES:
                raise SourceUnavailableError(
                    f"{self.root} holds more than {MAX_FILES} files;"
                    " leave folders out with .windlassignore, or name a smaller folder"
                )
            for entry in below:
                if entry.kind is not EntryKind.FOLDER:
                    yield entry
                elif enter(entry.path):
                    if entry.path.count("/") >= MAX_FOLDERS_DEEP:
                        yield _too_deep(entry)
                    else:
                        folders.append(entry.path)

    def find(self, path: str) -> Entry | None:
        parts = path.split("/")
        for i in range(1, len(parts)):
            found = self._look("/".join(parts[:i]))
            if found is None or found.kind is not EntryKind.FOLDER:
                return found
        return self._look(path)

    @contextmanager
    def open(self, entry: Entry) -> Iterator[BufferedReader]:
        folder, _, name = entry.path.rpartition("/")
        try:
            with self._folder(folder) as parent:
                descriptor = os.open(name, _FILE, dir_fd=parent)
        except OSError as error:
            raise _cannot_open(error) from error
        with os.fdopen(descriptor, "rb") as stream:
            self._require_same(entry, descriptor)
            yield stream
            self._require_same(entry, descriptor)

    def _require_same(self, entry: Entry, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or _identity(status) != entry.identity:
            raise TreeChangedError(f"{entry.path} changed while it was read")

    def _look(self, path: str) -> Entry | None:
        folder, _, name = path.rpartition("/")
        try:
            with self._folder(folder) as parent:
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                return None
            return _unreadable(path, error)
        return _entry_of(path, status, time.time())

    @contextmanager
    def _folder(self, path: str) -> Iterator[int]:
        """An open folder below the root, reached without following a link."""
        try:
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceUnavailableError(_gone(self.root, error)) from error
        try:
            for name in path.split("/") if path else ():
                child = os.open(name, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = child
            yield descriptor
        finally:
            os.close(descriptor)


def _entry(path: str, item: os.DirEntry[str], now: float) -> Entry:
    try:
        return _entry_of(path, item.stat(follow_symlinks=False), now)
    except OSError as error:
        return _unreadable(path, error)


def _entry_of(path: str, status: os.stat_result, now: float) -> Entry:
    if stat.S_ISREG(status.st_mode):
        settled = now - max(status.st_mtime, status.st_ctime) > SETTLING
        return Entry(path, EntryKind.FILE, _identity(status), settled)
    if stat.S_ISDIR(status.st_mode):
        return Entry(path, EntryKind.FOLDER)
    if stat.S_ISLNK(status.st_mode):
        return Entry(path, EntryKind.SYMLINK)
    return Entry(path, EntryKind.SPECIAL)


def _identity(status: os.stat_result) -> str:
    numbers = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return ":".join(map(str, numbers))


def _unreadable(path: str, error: OSError) -> Entry:
    message = str(_cannot_open(error))
    return Entry(path, EntryKind.UNREADABLE, identity=message, message=message)


def _too_deep(entry: Entry) -> Entry:
    message = f"lies more than {MAX_FOLDERS_DEEP} folders deep and is not read; move it up"
    return Entry(entry.path, EntryKind.UNREADABLE, identity=message, message=message)


def _cannot_open(error: OSError) -> UnreadableError:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise SourceUnavailableError(
            "too many files are open; raise the limit (ulimit -n) of the daemon"
        ) from error
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return UnreadableError("is reached through a symlink and is not read; use a copy")
    if error.errno == errno.ENOENT:
        raise TreeChangedError("a file was removed while it was read") from error
    return UnreadableError(
        f"cannot be opened ({error.strerror}); give the daemon the right to read it,"
        " or list it in .windlassignore"
    )


def _gone(root: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return (
            f"{root} does not exist; put the folder back and Windlass goes on."
            " Nothing is removed meanwhile"
        )
    if isinstance(error, NotADirectoryError):
        return f"{root} is not a folder; give the folder that holds the specs"
    return f"{root} cannot be opened ({error.strerror}); give the daemon the right to read it"
