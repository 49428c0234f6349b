"""What people see: colours on a terminal; plain, stable text where a program reads.

Tables have no lines and no wrapping, so that grep and awk work on them: every cell holds
something, and only the last column may hold spaces.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.text import Text

STYLES = {
    "True": "green",
    "Synced": "green",
    "Healthy": "green",
    "ok": "green",
    "False": "red",
    "Degraded": "red",
    "Missing": "red",
    "fail": "red",
    "Unknown": "yellow",
    "OutOfSync": "yellow",
    "Progressing": "yellow",
    "warn": "yellow",
    "Suspended": "magenta",
}
"""Colour of a whole cell, by what it says."""


def stdout() -> Console:
    """Where results go."""
    return Console(file=sys.stdout, soft_wrap=True, highlight=False, markup=False, emoji=False)


def stderr() -> Console:
    """Where progress, notes and errors go."""
    return Console(file=sys.stderr, soft_wrap=True, highlight=False, markup=False, emoji=False)


def say(text: str, style: str = "") -> None:
    """One line of the result."""
    stdout().print(Text(text, style=style))


def note(text: str, style: str = "") -> None:
    """One line for people beside the result."""
    stderr().print(Text(text, style=style))


def show_failure(error: str, hint: str) -> None:
    """``error: ...`` and ``hint: ...`` on stderr."""
    console = stderr()
    console.print(Text.assemble(("error: ", "bold red"), error))
    if hint:
        console.print(Text.assemble(("hint: ", "bold cyan"), hint))


def raw(text: str) -> None:
    """Text for programs, exactly as it is."""
    sys.stdout.write(text if text.endswith("\n") else text + "\n")
    sys.stdout.flush()


def one_line(text: str) -> str:
    """The text without line breaks, and a ``-`` for nothing."""
    return " ".join(text.split()) or "-"


class Table:
    """Aligned columns. The widths stay as the first rows set them, for tables that grow."""

    def __init__(self, headers: Sequence[str], rows: Iterable[Sequence[str]] = ()) -> None:
        self._headers = list(headers)
        first = [[one_line(cell) for cell in row] for row in rows]
        self._widths = [
            max(len(cell) for cell in column) for column in zip(self._headers, *first, strict=True)
        ]
        self._rows = first

    def line(self, row: Sequence[str], style: str = "") -> Text:
        """One row as a line."""
        cells = [one_line(cell) for cell in row]
        text = Text(style=style)
        for cell, width in zip(cells[:-1], self._widths, strict=False):
            text.append(cell, STYLES.get(cell, ""))
            text.append(" " * (max(width - len(cell), 0) + 2))
        text.append(cells[-1], STYLES.get(cells[-1], ""))
        return text

    def show(self) -> None:
        """Print the headers and the rows."""
        console = stdout()
        console.print(self.line(self._headers, "bold"))
        for row in self._rows:
            console.print(self.line(row))

    def add(self, row: Sequence[str]) -> None:
        """Print one more row."""
        stdout().print(self.line(row))
        sys.stdout.flush()


def age(then: datetime, now: datetime | None = None) -> str:
    """How long ago, in one or two units: ``45s``, ``12m``, ``3h20m``, ``5d``."""
    seconds = max(int(((now or datetime.now(UTC)) - then).total_seconds()), 0)
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours = seconds // 60, seconds // 3600
    if minutes < 120:
        return f"{minutes}m"
    if hours < 10:
        return f"{hours}h{minutes % 60}m"
    return f"{hours}h" if hours < 48 else f"{hours // 24}d"


def clock_time(moment: datetime) -> str:
    """A moment in local time, to the second."""
    return moment.astimezone().strftime("%Y-%m-%dT%H:%M:%S%z")
