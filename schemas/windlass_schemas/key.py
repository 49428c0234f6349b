"""The name of a declared thing: ``kind/namespace/name``. Only keys travel through the workqueue."""

from __future__ import annotations

import re
from typing import NamedTuple

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
DEFAULT_NAMESPACE = "default"

_NAME = re.compile(NAME_PATTERN)


class Key(NamedTuple):
    """Which object is meant. Ordered and hashable."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"

    @property
    def short(self) -> str:
        """``Kind/name`` in the default namespace, the full form elsewhere: what people type."""
        return f"{self.kind}/{self.name}" if self.namespace == DEFAULT_NAMESPACE else str(self)

    @classmethod
    def parse(cls, text: str) -> Key:
        """Read ``kind/name`` or ``kind/namespace/name``; the kind's case does not matter.

        Raises ValueError with a message for people when the text is neither.
        """
        parts = text.split("/")
        if len(parts) == 2:
            parts = [parts[0], DEFAULT_NAMESPACE, parts[1]]
        if len(parts) != 3 or not all(parts):
            raise ValueError(f"{text!r} is no key; write KIND/NAME or KIND/NAMESPACE/NAME")
        kind, namespace, name = parts
        for part in (namespace, name):
            if not _NAME.match(part):
                raise ValueError(
                    f"{part!r} in {text!r} is no name; use lower-case letters, digits and '-',"
                    " at most 63 characters"
                )
        return cls(kind[:1].upper() + kind[1:].lower(), namespace, name)
