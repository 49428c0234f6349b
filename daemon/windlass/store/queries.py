"""Named SQL statements, read from a file: ``-- name: NAME`` starts each one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files


def load_queries(file: str) -> Mapping[str, str]:
    """The statements of ``store/sql/<file>`` by name. Raises ValueError for a name given twice."""
    text = (files("windlass.store") / "sql" / file).read_text()
    _, *parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)
    names, statements = parts[::2], [statement.strip() for statement in parts[1::2]]
    if len(set(names)) != len(names):
        raise ValueError(f"{file} names a statement twice")
    return dict(zip(names, statements, strict=True))


def load_migrations() -> tuple[tuple[int, str], ...]:
    """(number, script) of the migrations ``NNNN_*.sql``, in order."""
    folder = files("windlass.store") / "sql"
    found = (f for f in folder.iterdir() if re.match(r"^\d{4}_\w+\.sql$", f.name))
    return tuple(sorted((int(f.name[:4]), f.read_text()) for f in found))
