"""The artifact store: files by content, so that what was made once is never made again.

Lives in the state folder as ``sha256/ab/<64 hex digits>``. A file is complete from the moment that
it has its name: it is written elsewhere, synced, and linked. Files never change and have no owner.
Every method is blocking; callers in the event loop use a thread for anything large.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO

from windlass_schemas import Artifact

CHUNK = 1 << 20


class ArtifactStore:
    """Content-addressed files below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / "incoming"

    def path(self, digest: str) -> Path:
        """Where the file of that digest lies, whether it is there or not."""
        algorithm, _, hexdigits = digest.partition(":")
        if algorithm != "sha256" or len(hexdigits) != 64:
            raise ValueError(f"{digest!r} is no sha256 digest")
        return self.root / "sha256" / hexdigits[:2] / hexdigits

    def has(self, digest: str) -> bool:
        """Whether the file is there."""
        return self.path(digest).is_file()

    def read(self, digest: str) -> bytes:
        """The whole file. Raises FileNotFoundError."""
        return self.path(digest).read_bytes()

    def put(self, data: bytes, name: str) -> Artifact:
        """Keep bytes."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if not self.has(digest):
            with self._writer() as file:
                file.write(data)
                self._keep(file, digest)
        return Artifact(digest=digest, size=len(data), name=name)

    def put_file(self, source: Path, name: str) -> Artifact:
        """Keep a copy of a file; reads it once, in pieces. Raises OSError, also for a full disk."""
        with source.open("rb") as stream:
            return self.put_stream(stream, name)

    def put_stream(self, stream: BinaryIO, name: str, limit: int | None = None) -> Artifact:
        """Keep what a stream gives. Raises ValueError past ``limit`` bytes."""
        hasher, size = hashlib.sha256(), 0
        with self._writer() as file:
            while chunk := stream.read(CHUNK):
                hasher.update(chunk)
                size += len(chunk)
                if limit is not None and size > limit:
                    raise ValueError(f"{name} is larger than {limit} bytes")
                file.write(chunk)
            digest = "sha256:" + hasher.hexdigest()
            if not self.has(digest):
                self._keep(file, digest)
        return Artifact(digest=digest, size=size, name=name)

    def copy_to(self, digest: str, destination: Path) -> None:
        """Write a private copy. Raises FileNotFoundError."""
        shutil.copyfile(self.path(digest), destination)

    def _writer(self) -> tempfile._TemporaryFileWrapper[bytes]:
        self._incoming.mkdir(parents=True, exist_ok=True)
        return tempfile.NamedTemporaryFile(dir=self._incoming)

    def _keep(self, file: tempfile._TemporaryFileWrapper[bytes], digest: str) -> None:
        """Give a written file its name. A link, because the temporary name removes itself."""
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o444)
        target = self.path(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file.name, target)
        except FileExistsError:
            return
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
