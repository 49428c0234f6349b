"""SQL in files: ``store/sql/<dialect>/`` has the named statements and the migrations of a database.

``-- name: NAME`` starts a statement; ``NNNN_<what>.sql`` is a migration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Literal

Dialect = Literal["sqlite", "postgres"]


@cache
def load_queries(dialect: Dialect, file: str = "queries.sql") -> Mapping[str, str]:
    """The statements of a file by name. Raises ValueError for a name given twice."""
    text = (files("windlass.store") / "sql" / dialect / file).read_text()
    _, *parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)
    names, statements = parts[::2], [statement.strip() for statement in parts[1::2]]
    if len(set(names)) != len(names):
        raise ValueError(f"{dialect}/{file} names a statement twice")
    return dict(zip(names, statements, strict=True))


@cache
def load_migrations(dialect: Dialect) -> tuple[tuple[int, str], ...]:
    """(number, script) of a database's migrations, in order."""
    folder = files("windlass.store") / "sql" / dialect
    found = (f for f in folder.iterdir() if re.match(r"^\d{4}_\w+\.sql$", f.name))
    return tuple(sorted((int(f.name[:4]), f.read_text()) for f in found))


def load_script(dialect: Dialect, file: str) -> str:
    """The text of ``store/sql/<dialect>/<file>``."""
    return (files("windlass.store") / "sql" / dialect / file).read_text()
