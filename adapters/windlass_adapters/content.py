"""Files by content, with the standard library alone: the layer below ``artifacts``.

A run keeps its own outputs (hop 7, after the daemon may be long gone), in a process that must start
fast and stay small, so that nothing here may import pydantic.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Protocol

CHUNK = 1 << 20


class Readable(Protocol):
    """What gives bytes until it gives none."""

    def read(self, size: int, /) -> bytes: ...


def path_of(root: Path, digest: str) -> Path:
    """Where the file of that digest lies, whether it is there or not. Raises ValueError."""
    algorithm, _, hexdigits = digest.partition(":")
    if algorithm != "sha256" or len(hexdigits) != 64:
        raise ValueError(f"{digest!r} is no sha256 digest")
    return root / "sha256" / hexdigits[:2] / hexdigits


def keep(root: Path, stream: Readable, name: str, limit: int | None = None) -> tuple[str, int]:
    """Keep what a stream gives; returns digest and size in bytes.

    Raises ValueError past ``limit`` bytes, and OSError, also for a full disk.
    """
    incoming = root / "incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    hasher, size = hashlib.sha256(), 0
    with tempfile.NamedTemporaryFile(dir=incoming) as file:
        while chunk := stream.read(CHUNK):
            hasher.update(chunk)
            size += len(chunk)
            if limit is not None and size > limit:
                raise ValueError(f"{name} is larger than {limit} bytes")
            file.write(chunk)
        digest = "sha256:" + hasher.hexdigest()
        target = path_of(root, digest)
        if not target.is_file():
            file.flush()
            _give_name(Path(file.name), file.fileno(), target)
    return digest, size


def _give_name(source: Path, descriptor: int, target: Path) -> None:
    """Publish a written file. A link, because the temporary name removes itself."""
    os.fsync(descriptor)
    os.fchmod(descriptor, 0o444)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        return
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
