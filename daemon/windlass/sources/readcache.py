"""What was read of spec files, kept over a restart (hop 1).

Parsing thousands of files takes seconds, and almost none of them change while a daemon is away. The
cache is a file of its own that may be lost, removed or damaged at any time: then files are parsed.
It is only believed by the very code that wrote it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import windlass_schemas
from windlass.sources.specfile import Spec, SpecFile, spec_again
from windlass.sources.tree import Entry, EntryKind
from windlass_schemas import parse_canonical

_SCHEMA = """
CREATE TABLE IF NOT EXISTS maker (code TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS read (
    path     TEXT PRIMARY KEY,
    identity TEXT NOT NULL,
    content  TEXT NOT NULL,
    specs    TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Read:
    """A YAML file as it was read once."""

    entry: Entry
    content: str
    """Digest of its bytes."""
    file: SpecFile

    @property
    def worth_keeping(self) -> bool:
        """Whether it is whole, and its identity proves that nothing has changed."""
        return self.entry.settled and bool(self.file.specs) and not self.file.faults


class ReadCache:
    """Files with specs and without faults, by their path. Blocking; one caller at a time."""

    def __init__(self, file: Path | None) -> None:
        """Without ``file`` nothing is kept."""
        self._file = file

    def load(self) -> dict[str, Read]:
        """Everything that was kept."""
        try:
            with self._open() as connection:
                rows = connection.execute("SELECT path, identity, content, specs FROM read")
                return {row[0]: _read(*row) for row in rows}
        except (sqlite3.Error, OSError, ValueError, TypeError):
            return {}

    def save(self, before: Mapping[str, Read], now: Mapping[str, Read]) -> None:
        """Keep what has been read anew, and forget what is gone."""
        changed = [r for path, r in now.items() if before.get(path) is not r]
        gone = [(path,) for path in before if path not in now]
        gone += [(r.entry.path,) for r in changed if not r.worth_keeping]
        kept = [_row(r) for r in changed if r.worth_keeping]
        if not kept and not gone:
            return
        try:
            with self._open() as connection, connection:
                connection.executemany("DELETE FROM read WHERE path = ?", gone)
                connection.executemany("INSERT OR REPLACE INTO read VALUES (?, ?, ?, ?)", kept)
        except (sqlite3.Error, OSError, UnicodeEncodeError):
            return  # the files are there to be read again

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The file, made anew when it cannot be used and emptied when other code wrote it."""
        if self._file is None:
            raise FileNotFoundError("nothing is kept")
        try:
            connection = _connect(self._file)
        except sqlite3.DatabaseError:
            for name in ("", "-wal", "-shm"):
                self._file.with_name(self._file.name + name).unlink(missing_ok=True)
            connection = _connect(self._file)
        with closing(connection):
            yield connection


def _connect(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=1)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_SCHEMA)
        if connection.execute("SELECT code FROM maker").fetchall() != [(_code(),)]:
            with connection:
                connection.execute("DELETE FROM maker")
                connection.execute("DELETE FROM read")
                connection.execute("INSERT INTO maker VALUES (?)", (_code(),))
    except BaseException:
        connection.close()
        raise
    return connection


@cache
def _code() -> str:
    """Digest of the code that reads specs: other code may read them otherwise."""
    assert windlass_schemas.__file__ is not None
    hasher = hashlib.sha256()
    for folder in (Path(__file__).parent, Path(windlass_schemas.__file__).parent):
        for file in sorted(folder.glob("*.py")):
            hasher.update(file.read_bytes())
    return hasher.hexdigest()


def _row(read: Read) -> tuple[str, str, str, str]:
    specs = [[spec.line, spec.text, spec.canonical, spec.digest] for spec in read.file.specs]
    return read.entry.path, read.entry.identity, read.content, json.dumps(specs)


def _read(path: str, identity: str, content: str, specs: str) -> Read:
    found: Iterable[tuple[int, str, str, str]] = json.loads(specs)
    file = SpecFile(tuple(_spec(path, *each) for each in found), (), ours=True)
    return Read(Entry(path, EntryKind.FILE, identity), content, file)


def _spec(path: str, line: int, text: str, canonical: str, digest: str) -> Spec:
    return spec_again(parse_canonical(canonical), path, line, text, canonical, digest)
