"""What files declare, as messages: read by the strict loader, with the small files they name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from windlass.bus.publishing import PublishError, Said
from windlass.checks import adapter_check
from windlass.registry import Registry
from windlass.sources.envelope import ELSEWHERE, MAX_TRAVELLING
from windlass.sources.opening import open_source
from windlass.store.base import Fault
from windlass_schemas import Artifact, dump_resource, key_of

_PIECE = 1 << 20


@dataclass
class _Memory:
    """Keeps what may travel; of larger files, only how large they are."""

    contents: dict[str, bytes] = field(default_factory=dict)

    def keep(self, stream: BinaryIO, name: str) -> Artifact:
        hasher, size, pieces = hashlib.sha256(), 0, list[bytes]()
        while piece := stream.read(_PIECE):
            hasher.update(piece)
            size += len(piece)
            if size <= MAX_TRAVELLING:
                pieces.append(piece)
        digest = f"sha256:{hasher.hexdigest()}"
        if size <= MAX_TRAVELLING:
            self.contents[digest] = b"".join(pieces)
        return Artifact(digest=digest, size=size, name=name)


@dataclass(frozen=True)
class Reading:
    """What lies at a path."""

    said: tuple[Said, ...]
    faults: tuple[Fault, ...]
    """While there is any, nothing should be published."""


async def read_said(path: Path) -> Reading:
    """Every document of a file, or of all files of a folder, as messages.

    Raises SourceUnavailableError, and PublishError for files that are too large to travel.
    """
    memory = _Memory()
    check = adapter_check(Registry())
    source = await open_source(path, worktree=True, keep=memory.keep, check=check)
    found = await source.read()
    said = [
        Said(
            key=key_of(document.resource),
            document=dump_resource(document.resource),
            files=_contents(document.files, memory, f"{document.path}:{document.line}"),
        )
        for document in found.documents
    ]
    return Reading(tuple(said), found.faults)


def _contents(files: Mapping[str, Artifact], memory: _Memory, place: str) -> Mapping[str, bytes]:
    for path, artifact in files.items():
        if artifact.digest not in memory.contents:
            raise PublishError(
                f"{place} names {path} of {artifact.size / (1 << 20):.1f} MiB, and at most"
                f" {MAX_TRAVELLING >> 20} MiB travel with a message; {ELSEWHERE}"
            )
    return {path: memory.contents[artifact.digest] for path, artifact in files.items()}
