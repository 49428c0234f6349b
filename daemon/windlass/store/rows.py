"""Values to database rows and back, the same for every database."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache, wraps
from typing import ParamSpec, Protocol, TypeVar

from pydantic import TypeAdapter

from windlass.store.base import (
    Document,
    Entry,
    ExternalRecord,
    Hold,
    Object,
    SourceState,
    StoreError,
)
from windlass.store.takeover import Declared
from windlass_schemas import (
    Artifact,
    CloudEvent,
    Key,
    Resource,
    Status,
    parse_canonical,
    parse_resource,
)


class Row(Protocol):
    """A row of any database."""

    def __getitem__(self, column: str, /) -> str | int | None: ...


_RECORD = TypeAdapter(ExternalRecord)
_HOLD = TypeAdapter(Hold)
_ENTRY = TypeAdapter(Entry)
_FILES = TypeAdapter(dict[str, Artifact])
_LINES = TypeAdapter(tuple[str, ...])
_NO_FILES: Mapping[str, Artifact] = {}


P = ParamSpec("P")
T = TypeVar("T")


def _checked(read: Callable[P, T]) -> Callable[P, T]:
    """A row that something has damaged is a StoreError: it concerns one object, not the daemon."""

    @wraps(read)
    def reading(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return read(*args, **kwargs)
        except (ValueError, TypeError, AttributeError, AssertionError, RecursionError) as error:
            raise StoreError(
                f"the database holds a row that cannot be read ({_first_line(error)});"
                " put the state folder back from a backup"
            ) from error

    return reading


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def text(row: Row, column: str) -> str:
    """A column that is never NULL."""
    value = row[column]
    assert isinstance(value, str), column
    return value


def number(row: Row, column: str) -> int:
    """A column that is never NULL."""
    value = row[column]
    assert isinstance(value, int), column
    return value


def optional_text(row: Row, column: str) -> str | None:
    """A column that may be NULL."""
    return None if row[column] is None else text(row, column)


def time_text(value: datetime) -> str:
    """ISO 8601 in UTC."""
    return value.astimezone(UTC).isoformat()


@lru_cache(maxsize=4096)
def _resource(document: str) -> Resource:
    return parse_canonical(document)


_key = lru_cache(maxsize=1 << 16)(Key.parse)


@_checked
def declared_of(row: Row) -> Declared:
    """A desired row, as far as a takeover needs it."""
    return Declared(
        key=_key(text(row, "key")),
        source=text(row, "source"),
        digest=text(row, "digest"),
        resource=text(row, "resource"),
        path=text(row, "path"),
        line=number(row, "line"),
        deleting=row["deleting_since"] is not None,
        prune=text(row, "prune"),
        faults=_lines_of(text(row, "faults")),
        conflict=text(row, "conflict"),
    )


@_checked
def placed_of(row: Row) -> tuple[Key, str]:
    """A key, and its lane: ``namespace/target``."""
    return _key(text(row, "key")), text(row, "lane")


@_checked
def object_of(row: Row) -> Object:
    """A joined row of desired and object, with the records of its externals as a JSON array."""
    deleting, hold = optional_text(row, "deleting_since"), optional_text(row, "hold")
    status = optional_text(row, "status")
    return Object(
        key=_key(text(row, "key")),
        uid=text(row, "uid"),
        generation=number(row, "generation"),
        digest=text(row, "digest"),
        resource=_resource(text(row, "resource")),
        files=files_of(text(row, "files")),
        source=text(row, "source"),
        revision=text(row, "revision"),
        author=text(row, "author"),
        path=text(row, "path"),
        line=number(row, "line"),
        created_at=datetime.fromisoformat(text(row, "created_at")),
        generation_at=datetime.fromisoformat(text(row, "generation_at")),
        deleting_since=datetime.fromisoformat(deleting) if deleting else None,
        prune=text(row, "prune"),
        faults=_lines_of(text(row, "faults")),
        conflict=text(row, "conflict"),
        suspended=text(row, "suspended"),
        sync_token=optional_text(row, "sync_token"),
        status=Status.model_validate_json(status) if status else Status(),
        externals=_records_of(optional_text(row, "records")),
        hold=_HOLD.validate_json(hold) if hold else None,
        seq=number(row, "seq") if row["seq"] is not None else 0,
        due=bool(row["due"]),
    )


@_checked
def source_of(row: Row) -> SourceState:
    """A source row."""
    return SourceState(
        id=text(row, "id"),
        revision=text(row, "revision"),
        faults=_lines_of(text(row, "faults")),
        error=text(row, "error"),
        blocked=tuple(Key.parse(key) for key in _LINES.validate_json(text(row, "blocked"))),
        updated_at=datetime.fromisoformat(text(row, "updated_at")),
    )


def record_json(record: ExternalRecord) -> str:
    return _RECORD.dump_json(record).decode()


@_checked
def record_of(document: str) -> ExternalRecord:
    return _RECORD.validate_json(document)


def _records_of(documents: str | None) -> tuple[ExternalRecord, ...]:
    if documents is None:
        return ()
    return tuple(_RECORD.validate_json(document) for document in _lines_of(documents))


def _lines_of(document: str) -> tuple[str, ...]:
    """Most are empty: that is known without reading."""
    return _LINES.validate_json(document) if document != "[]" else ()


def hold_json(hold: Hold | None) -> str | None:
    return None if hold is None else _HOLD.dump_json(hold).decode()


def entry_json(entry: Entry) -> str:
    return _ENTRY.dump_json(entry).decode()


@_checked
def entry_of(document: str) -> Entry:
    return _ENTRY.validate_json(document)


@_checked
def event_of(document: str) -> CloudEvent:
    return CloudEvent.model_validate_json(document)


def files_json(files: Mapping[str, Artifact]) -> str:
    return _FILES.dump_json(dict(files)).decode()


@_checked
def files_of(document: str) -> Mapping[str, Artifact]:
    return _FILES.validate_json(document) if document != "{}" else _NO_FILES


def lines_json(lines: Sequence[str]) -> str:
    return json.dumps(list(lines))


def document_json(document: Document) -> str:
    """What a message has declared, to be remembered."""
    return json.dumps(
        {
            "resource": json.loads(document.canonical),
            "files": json.loads(files_json(document.files)),
            "digest": document.digest,
            "path": document.path,
            "line": document.line,
        }
    )


def document_of(remembered: str) -> Document:
    """The same, read again. Raises StoreError."""
    try:
        said = json.loads(remembered)
        return Document(
            declares=parse_resource(said["resource"]),
            files=files_of(json.dumps(said["files"])),
            digest=said["digest"],
            path=said["path"],
            line=said["line"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"what a message said cannot be read any more ({error}); publish it again"
        ) from error
