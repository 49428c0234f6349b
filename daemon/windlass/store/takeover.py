"""What a source's snapshot means for the store: hop 2, decided purely.

Every store runs this one function inside its transaction and then only writes what it says. The
prune rules live here: nothing is pruned while any document is faulty, a policy can ask first or
keep, and a breaker stops a revision that would delete more than ``max(5, 20 %)`` of the source's
objects, or all of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from windlass.store.base import Document, Snapshot
from windlass_schemas import Key

BREAKER_COUNT = 5
BREAKER_SHARE = 0.2


class Declared(NamedTuple):
    """One desired row, as far as a takeover needs it. A tuple: each takeover makes all of them."""

    key: Key
    source: str
    digest: str
    resource: str
    """Canonical JSON."""
    path: str
    line: int
    deleting: bool
    prune: str
    faults: tuple[str, ...]
    conflict: str

    @property
    def prune_policy(self) -> str:
        """Asked of the few whose document has vanished."""
        policy: str = json.loads(self.resource).get("policy", {}).get("prune", "auto")
        return policy


@dataclass
class Takeover:
    """What to write. Every list is in the order of the snapshot, or of the keys."""

    insert: list[Document] = field(default_factory=list)
    update: list[Document] = field(default_factory=list)
    """A new generation."""
    redeclare: list[Document] = field(default_factory=list)
    """The same generation: other labels, another place, or back before it was gone."""
    faults: dict[Key, tuple[str, ...]] = field(default_factory=dict)
    conflict: dict[Key, str] = field(default_factory=dict)
    """For the owner's row: which other source declares the key; empty clears it."""
    conflicts: dict[Key, str] = field(default_factory=dict)
    """For the newcomer: which source owns the key."""
    delete: list[Key] = field(default_factory=list)
    prune: dict[Key, str] = field(default_factory=dict)
    blocked: list[Key] = field(default_factory=list)


def take_over(rows: Iterable[Declared], snapshot: Snapshot, unchanged: int = 0) -> Takeover:
    """Compare all rows of the store with one source's whole set.

    So many of the source's rows are ``unchanged``: they say what its documents say, and bear no
    mark. Both are left out.
    """
    known = {row.key: row for row in rows}
    result = Takeover()
    faulty = _faults_by_key(snapshot)
    declared: set[Key] = set()
    for document in snapshot.documents:
        key = document.key
        declared.add(key)
        take_document(result, known.get(key), document, snapshot.source)
    for key, row in known.items():
        if row.source == snapshot.source:
            _take_faults(result, row, faulty.get(key, ()))
        elif row.conflict == snapshot.source and key not in declared:
            result.conflict[key] = ""
    if not snapshot.faults:
        mine = [row for row in known.values() if row.source == snapshot.source]
        _prune(result, mine, declared, unchanged)
    return result


def _faults_by_key(snapshot: Snapshot) -> Mapping[Key, tuple[str, ...]]:
    found: dict[Key, tuple[str, ...]] = {}
    for fault in snapshot.faults:
        if fault.key is not None:
            found[fault.key] = (*found.get(fault.key, ()), str(fault))
    return found


def take_document(result: Takeover, row: Declared | None, document: Document, source: str) -> None:
    """Compare one document of a source with the row of its key."""
    if row is None:
        result.insert.append(document)
    elif row.source != source:
        result.conflicts[row.key] = row.source
        if row.conflict != source:
            result.conflict[row.key] = source
    elif row.digest != document.digest:
        result.update.append(document)
    elif (
        row.deleting
        or row.prune
        or (row.path, row.line) != (document.path, document.line)
        or row.resource != document.canonical
    ):
        result.redeclare.append(document)


def _take_faults(result: Takeover, row: Declared, faults: tuple[str, ...]) -> None:
    if row.faults != faults:
        result.faults[row.key] = faults


def _prune(result: Takeover, rows: list[Declared], declared: set[Key], unchanged: int) -> None:
    vanished = [row for row in rows if row.key not in declared and not row.deleting]
    doomed = []
    for row in sorted(vanished, key=lambda row: row.key):
        if row.prune_policy == "auto":
            doomed.append(row)
        else:
            flag = "awaiting" if row.prune_policy == "confirm" else "skipped"
            if row.prune != flag:
                result.prune[row.key] = flag
    limit = max(BREAKER_COUNT, BREAKER_SHARE * (len(rows) + unchanged))
    if len(doomed) > limit or (doomed and not declared and not unchanged):
        result.blocked = [row.key for row in doomed]
        result.prune |= {row.key: "blocked" for row in doomed if row.prune != "blocked"}
    else:
        result.delete = [row.key for row in doomed]
