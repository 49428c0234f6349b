"""What sources say: hop 1's gift to hop 2, and what taking it over has come to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from windlass_schemas import (
    Artifact,
    Key,
    Resource,
    canonical_json,
    dump_resource,
    key_of,
    parse_canonical,
)


class Written:
    """A resource as canonical JSON, which is read once somebody looks into it."""

    __slots__ = ("_resource", "key", "text")

    def __init__(self, key: Key, text: str, resource: Resource | None = None) -> None:
        """``text`` is the ``resource``, if that is known, and has been one in any case."""
        self.key = key
        self.text = text
        self._resource = resource

    @property
    def resource(self) -> Resource:
        """What is written."""
        if self._resource is None:
            self._resource = parse_canonical(self.text)
        return self._resource

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Written) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


@dataclass(frozen=True)
class Document:
    """One valid document as a source read it, with the files that it names already kept."""

    declares: Resource | Written
    files: Mapping[str, Artifact]
    """By path beside the document; a folder gives one entry per file."""
    digest: str
    path: str
    """Path inside the source, for messages."""
    line: int

    @property
    def resource(self) -> Resource:
        """What it declares."""
        return self.declares.resource if isinstance(self.declares, Written) else self.declares

    @cached_property
    def key(self) -> Key:
        """The object that it declares."""
        return self.declares.key if isinstance(self.declares, Written) else key_of(self.declares)

    @cached_property
    def name(self) -> str:
        """The key as text, as it stands in the books."""
        return str(self.key)

    @cached_property
    def canonical(self) -> str:
        """The resource as canonical JSON. Made once: a document lives on in the next snapshots."""
        if isinstance(self.declares, Written):
            return self.declares.text
        return canonical_json(dump_resource(self.declares))


@dataclass(frozen=True)
class Fault:
    """One thing wrong with one document, in the words of the loader."""

    path: str
    line: int
    column: int
    field: str
    """Dotted path inside the document; empty when the document as a whole is meant."""
    message: str
    key: Key | None = None
    """The object that the document speaks of, when that much can be read."""

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}:{self.column}"
        return f"{place} {self.field}: {self.message}" if self.field else f"{place} {self.message}"


@dataclass(frozen=True)
class Snapshot:
    """The whole current set of one source at one revision."""

    source: str
    """The source's id, for example ``git:/srv/specs``."""
    revision: str
    """Commit id, or ``worktree:<digest>`` for saved files."""
    author: str
    """Who made the revision, for the history."""
    documents: tuple[Document, ...]
    faults: tuple[Fault, ...] = ()
    """While there is any, nothing is pruned."""


@dataclass(frozen=True)
class Applied:
    """What a snapshot did to the store."""

    changed: tuple[Key, ...]
    """New objects, new generations, deletions, and objects with new or mended faults."""
    conflicts: Mapping[Key, str] = field(default_factory=dict)
    """Keys that another source owns, and that source's id."""
    pruning: tuple[Key, ...] = ()
    """Objects whose deletion this snapshot has marked."""
    blocked: tuple[Key, ...] = ()
    """Objects that the breaker kept from being pruned; approve the revision to go on."""


@dataclass(frozen=True)
class SourceState:
    """What is known of one source."""

    id: str
    revision: str
    faults: tuple[str, ...]
    error: str
    """Why the source cannot be read at the moment; empty when it can."""
    blocked: tuple[Key, ...]
    updated_at: datetime
