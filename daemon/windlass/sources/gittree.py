"""The files of one commit as a tree, read from git's object store, never the work tree (hop 1)."""

from __future__ import annotations

import io
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, TYPE_CHECKING

from windlass.sources.base import SourceUnavailableError
from windlass.sources.gitcommand import command, environment
from windlass.sources.tree import MAX_FILES, Entry, EntryKind, Tree, UnreadableError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_AHEAD = 200
"""Objects asked for ahead: few enough that the questions fit into a pipe."""
_KINDS = {b"100": EntryKind.FILE, b"120": EntryKind.SYMLINK, b"160": EntryKind.SUBMODULE}


class Listings:
    """Reads what ``git ls-tree -r -z`` prints; a line of the listing before is not read again."""

    def __init__(self) -> None:
        self._known: Mapping[bytes, Entry] = {}

    def read(self, listing: bytes) -> Mapping[str, Entry]:
        """The entries by their path. Raises SourceUnavailableError for too many."""
        known = self._known
        lines = {line: known.get(line) or _entry(line) for line in listing.split(b"\0") if line}
        if len(lines) > MAX_FILES:
            raise SourceUnavailableError(
                f"the commit holds more than {MAX_FILES} files; name a smaller folder"
            )
        self._known = lines
        return {entry.path: entry for entry in lines.values()}


def _entry(line: bytes) -> Entry:
    about, _, raw = line.partition(b"\t")
    mode, _, name = about.split(b" ")
    path = raw.decode(errors="surrogateescape")
    return Entry(path, _KINDS.get(mode[:3], EntryKind.SPECIAL), name.decode())


class GitTree(Tree):
    """The files below one folder at one commit."""

    def __init__(self, entries: Mapping[str, Entry], blobs: Blobs) -> None:
        self._entries = entries
        self._blobs = blobs
        self._folders: dict[str, list[Entry]] | None = None

    def walk(self, enter: Callable[[str], bool], start: str = "") -> Iterator[Entry]:
        entered: dict[str, bool] = {start: True}

        def enters(folder: str) -> bool:
            known = entered.get(folder)
            if known is None:
                known = enters(folder.rpartition("/")[0]) and enter(folder)
                entered[folder] = known
            return known

        prefix = f"{start}/" if start else ""
        for folder, entries in self._below().items():
            if (folder == start or folder.startswith(prefix)) and enters(folder):
                yield from entries

    def find(self, path: str) -> Entry | None:
        found = self._entries.get(path)
        if found is not None:
            return found
        if path in self._below():
            return Entry(path, EntryKind.FOLDER)
        while "/" in path:
            path = path.rpartition("/")[0]
            if path in self._entries:
                return self._entries[path]
        return None

    def expect(self, entries: Sequence[Entry]) -> None:
        self._blobs.expect([entry.identity for entry in entries])

    @contextmanager
    def open(self, entry: Entry) -> Iterator[BufferedReader]:
        with self._blobs.open(entry.identity) as stream:
            yield stream

    def _below(self) -> dict[str, list[Entry]]:
        if self._folders is None:
            self._folders = {}
            for path, entry in self._entries.items():
                folder = path.rpartition("/")[0]
                here = self._folders.get(folder)
                if here is None:
                    here = self._folders[folder] = []
                    while folder and (folder := folder.rpartition("/")[0]) not in self._folders:
                        self._folders[folder] = []
                here.append(entry)
        return self._folders


class Blobs:
    """One ``git cat-file --batch``: started when first asked, for one reader at a time.

    Blocking. ``close`` may be called from another thread, and ends a read that hangs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._expected: deque[str] = deque()
        self._asked: deque[str] = deque()
        """Objects that git has been asked for and nobody has read yet."""

    def expect(self, names: Iterable[str]) -> None:
        """These will be opened next, in this order: git is asked for many at once."""
        self._expected = deque(names)

    @contextmanager
    def open(self, name: str) -> Iterator[BufferedReader]:
        """The content of an object. Raises UnreadableError, SourceUnavailableError."""
        source, sink = self._pipes()
        try:
            self._ask(name, source, sink)
            header = source.readline().split()
        except (OSError, ValueError) as error:
            raise self._broken() from error
        if len(header) == 2 and header[1] == b"missing":
            raise UnreadableError(
                "is not in git's object store (a partial clone?); run git fetch --refetch"
            )
        if len(header) != 3 or not header[2].isdigit():
            raise self._broken()
        raw = _Slice(source, int(header[2]))
        try:
            yield BufferedReader(raw)
        finally:
            whole = raw.drain() == 0 and source.read(1) == b"\n"
        if not whole:
            raise self._broken()

    def _ask(self, name: str, source: IO[bytes], sink: IO[bytes]) -> None:
        """Ask for an object, and ahead for those that come after it."""
        if self._asked and self._asked[0] == name:
            self._asked.popleft()
            return
        for _ in range(len(self._asked)):  # somebody changed the order
            self._asked.popleft()
            header = source.readline().split()
            if len(header) == 3:
                _Slice(source, int(header[2]) + 1).drain()
        names = [name]
        if self._expected and self._expected[0] == name:
            self._expected.popleft()
            ahead = range(min(_AHEAD, len(self._expected)))
            names += [self._expected.popleft() for _ in ahead]
        self._asked.extend(names[1:])
        sink.write("".join(f"{each}\n" for each in names).encode())
        sink.flush()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._closed = True
            process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except OSError:
                        continue  # the other end is gone already

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        with self._lock:
            if self._closed:
                raise self._broken()
            if self._process is None:
                self._process = subprocess.Popen(
                    command(self._folder, ["cat-file", "--batch"]),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=environment(),
                )
            process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        return process.stdout, process.stdin

    def _broken(self) -> SourceUnavailableError:
        return SourceUnavailableError(
            f"git cannot read an object in {self._folder}; run git fsck there"
        )


class _Slice(io.RawIOBase):
    """The next bytes of a stream, and no more."""

    def __init__(self, source: IO[bytes], size: int) -> None:
        self._source = source
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = self._source.read(min(len(view), self._left))
        view[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def drain(self) -> int:
        """Skip what nobody has read; the number of bytes that never came."""
        while self._left and (data := self._source.read(min(1 << 20, self._left))):
            self._left -= len(data)
        return self._left
