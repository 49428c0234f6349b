"""What was read of spec files, kept over a restart (hop 1).

Parsing thousands of files takes seconds, and almost none of them change while a daemon is away. The
cache is a file of its own that may be lost, removed or damaged at any time: then files are parsed.
It is only believed by the very code that wrote it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import windlass_schemas
from windlass.sources.specfile import Spec, SpecFile
from windlass.sources.tree import Entry, EntryKind
from windlass.store.base import Written
from windlass_schemas import Key, Reference

_MAKER = "CREATE TABLE IF NOT EXISTS maker (code TEXT PRIMARY KEY) WITHOUT ROWID"
_SCHEMA = """
DROP TABLE IF EXISTS read;
DROP TABLE IF EXISTS checked;
CREATE TABLE read (
    path     TEXT PRIMARY KEY,
    identity TEXT NOT NULL,
    content  TEXT NOT NULL,
    specs    TEXT NOT NULL,
    sum      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE checked (targets TEXT PRIMARY KEY, doubtful TEXT NOT NULL) STRICT, WITHOUT ROWID;
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


@dataclass(frozen=True)
class Kept:
    """Everything that was read, and what of it was found to be good."""

    reads: Mapping[str, Read] = field(default_factory=dict)
    """By path."""
    targets: str = ""
    """Digest of the Targets that the specs were checked with; empty when they were not."""
    doubtful: frozenset[str] = frozenset()
    """Files with specs that were not checked, or that something is wrong with."""


NOTHING = Kept()


class ReadCache:
    """Files with specs and without faults, by their path. Blocking; one caller at a time."""

    def __init__(self, file: Path | None, code: str = "") -> None:
        """Without ``file`` nothing is kept. ``code`` is a digest of what checks specs."""
        self._file = file
        self._checks = code

    def load(self) -> Kept:
        """Everything that was kept."""
        try:
            with self._open() as connection:
                rows = connection.execute("SELECT path, identity, content, specs, sum FROM read")
                shared: dict[str, tuple[Reference, ...]] = {}
                reads = {row[0]: _read(shared, *row) for row in rows}
                checked = connection.execute("SELECT targets, doubtful FROM checked").fetchone()
            targets, doubtful = checked or ("", "[]")
            return Kept(reads, targets, frozenset(json.loads(doubtful)))
        except (sqlite3.Error, OSError, ValueError, TypeError):
            return NOTHING

    def save(self, before: Kept, now: Kept) -> None:
        """Keep what has been read anew, and forget what is gone."""
        changed = [r for path, r in now.reads.items() if before.reads.get(path) is not r]
        gone = [(path,) for path in before.reads if path not in now.reads]
        gone += [(r.entry.path,) for r in changed if not r.worth_keeping]
        kept = [_row(r) for r in changed if r.worth_keeping]
        checked = (now.targets, json.dumps(sorted(now.doubtful)))
        same = (before.targets, before.doubtful) == (now.targets, now.doubtful)
        if not kept and not gone and same:
            return
        try:
            with self._open() as connection, connection:
                connection.executemany("DELETE FROM read WHERE path = ?", gone)
                connection.executemany("INSERT OR REPLACE INTO read VALUES (?, ?, ?, ?, ?)", kept)
                connection.execute("DELETE FROM checked")
                connection.execute("INSERT INTO checked VALUES (?, ?)", checked)
        except (sqlite3.Error, OSError, UnicodeEncodeError):
            return  # the files are there to be read again

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The file, made anew when it cannot be used and emptied when other code wrote it."""
        if self._file is None:
            raise FileNotFoundError("nothing is kept")
        maker = _code() + self._checks
        try:
            connection = _connect(self._file, maker)
        except sqlite3.DatabaseError:
            for name in ("", "-wal", "-shm"):
                self._file.with_name(self._file.name + name).unlink(missing_ok=True)
            connection = _connect(self._file, maker)
        with closing(connection):
            yield connection


def _connect(file: Path, maker: str) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=1)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(_MAKER)
        if connection.execute("SELECT code FROM maker").fetchall() != [(maker,)]:
            connection.execute("DELETE FROM maker")
            connection.executescript(_SCHEMA)
            with connection:
                connection.execute("INSERT INTO maker VALUES (?)", (maker,))
    except BaseException:
        connection.close()
        raise
    return connection


@cache
def _code() -> str:
    """Digest of the code that reads specs: other code may read them otherwise."""
    assert windlass_schemas.__file__ is not None
    hasher = hashlib.sha256()
    here, schemas = Path(__file__).parent, Path(windlass_schemas.__file__).parent
    files = [here.parent / "checks.py", *sorted(here.glob("*.py")), *sorted(schemas.glob("*.py"))]
    for file in files:
        hasher.update(file.read_bytes())
    return hasher.hexdigest()


def _row(read: Read) -> tuple[str, str, str, str, int]:
    specs = json.dumps([_said(spec) for spec in read.file.specs])
    return read.entry.path, read.entry.identity, read.content, specs, zlib.crc32(specs.encode())


def _said(spec: Spec) -> list[object]:
    references = [[str(r.key), r.field, r.output, r.condition] for r in spec.references]
    texts = [spec.text, spec.written.text, spec.digest]
    return [*spec.key, spec.line, *texts, json.dumps(references), spec.named]


def _read(
    shared: dict[str, tuple[Reference, ...]],
    path: str,
    identity: str,
    content: str,
    specs: str,
    checksum: int,
) -> Read:
    """A row again. Raises ValueError when it is not what was written."""
    if zlib.crc32(specs.encode()) != checksum:
        raise ValueError(f"{path} is damaged")
    found = []
    for kind, namespace, name, line, text, canonical, digest, needs, named in json.loads(specs):
        references = shared.get(needs)
        if references is None:
            references = shared[needs] = _references(needs)
        written = Written(Key(kind, namespace, name), canonical)
        files = tuple((each[0], each[1]) for each in named)
        found.append(Spec(written, path, line, references, files, text, digest))
    file = SpecFile(tuple(found), (), ours=True)
    return Read(Entry(path, EntryKind.FILE, identity), content, file)


def _references(text: str) -> tuple[Reference, ...]:
    return tuple(
        Reference(Key.parse(key), field, output, condition)
        for key, field, output, condition in json.loads(text)
    )
