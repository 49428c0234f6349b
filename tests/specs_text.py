"""Small specs and a store of files that only counts, for tests of the loader and the sources."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

from windlass_schemas import Artifact


class Keeper:
    """Keeps nothing but the names and digests that it was given."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def __call__(self, stream: BinaryIO, name: str) -> Artifact:
        data = stream.read()
        self.kept.append(name)
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        return Artifact(digest=digest, size=len(data), name=name)


def job(name: str, spec: str = "command: [echo]", policy: str = "") -> str:
    """A Job document."""
    tail = f"policy:\n  {policy}\n" if policy else ""
    return f"apiVersion: windlass/v1\nkind: Job\nmetadata:\n  name: {name}\nspec:\n  {spec}\n{tail}"


def model(name: str, spec: str) -> str:
    """A Model document."""
    return job(name, spec).replace("kind: Job", "kind: Model")
