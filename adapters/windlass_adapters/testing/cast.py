"""Who plays: the documents that the kit's stories are told with. An adapter may bring its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from windlass.store.base import Document
from windlass_adapters.testing.documents import document, kept_file

Part = Callable[[str, int], Document]
"""The document of that name in that version; another version must be another digest."""


@dataclass(frozen=True)
class Cast:
    """Where an adapter has no such document, the stories with it are not told."""

    lasting: Part | None = None
    """Something that lasts: a Model, a Deployment."""
    run: Part | None = None
    """Something that runs to an end, with ``retries: 1``."""
    beside: Sequence[Document] = ()
    """What they need: declared and Ready before each story, and left alone."""
    contents: Sequence[bytes] = ()
    """Contents of files that the documents name; they are kept in each new world."""

    def of(self, role: str) -> Part:
        """The ``lasting`` or the ``run`` one. Raises LookupError."""
        part: Part | None = getattr(self, role)
        if part is None:
            raise LookupError(f"nothing in this cast is {role}")
        return part


def _run(name: str, version: int) -> Document:
    spec = {"command": ["train"], "outputs": {"model": "model.onnx"}, "retries": 1}
    if version > 1:
        spec["params"] = {"version": version}
    return document("Job", name, spec)


IN_MEMORY = Cast(lasting=kept_file, run=_run)
"""What the memory adapter serves."""
