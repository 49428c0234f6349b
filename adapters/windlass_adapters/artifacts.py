"""The artifact store: files by content, so that what was made once is never made again.

Lives in the state folder as ``sha256/ab/<64 hex digits>``. A file is complete from the moment that
it has its name: it is written elsewhere, synced, and linked. Files never change and have no owner.
Every method is blocking; callers in the event loop use a thread for anything large.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from windlass_adapters.bundle import pack
from windlass_adapters.content import Readable, keep, path_of
from windlass_schemas import Artifact


class ArtifactStore:
    """Content-addressed files below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: str) -> Path:
        """Where the file of that digest lies, whether it is there or not."""
        return path_of(self.root, digest)

    def has(self, digest: str) -> bool:
        """Whether the file is there."""
        return self.path(digest).is_file()

    def read(self, digest: str) -> bytes:
        """The whole file. Raises FileNotFoundError."""
        return self.path(digest).read_bytes()

    def put(self, data: bytes, name: str) -> Artifact:
        """Keep bytes."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if self.has(digest):
            return Artifact(digest=digest, size=len(data), name=name)
        return self.put_stream(io.BytesIO(data), name)

    def put_file(self, source: Path, name: str) -> Artifact:
        """Keep a copy of a file; reads it once, in pieces. Raises OSError, also for a full disk."""
        with source.open("rb") as stream:
            return self.put_stream(stream, name)

    def put_stream(self, stream: Readable, name: str, limit: int | None = None) -> Artifact:
        """Keep what a stream gives. Raises ValueError past ``limit`` bytes."""
        digest, size = keep(self.root, stream, name, limit)
        return Artifact(digest=digest, size=size, name=name)

    def put_together(self, files: Mapping[str, Artifact], name: str) -> Artifact:
        """Keep one archive of files that are here. Raises OSError."""
        paths = {each: self.path(artifact.digest) for each, artifact in files.items()}
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.root) as archive:
            pack(paths, archive)
            archive.seek(0)
            return self.put_stream(archive, name)

    def copy_to(self, digest: str, destination: Path) -> None:
        """Write a private copy. Raises FileNotFoundError."""
        shutil.copyfile(self.path(digest), destination)
