"""How a command ends when it does not end well: what went wrong, what to do, and an exit code."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Stable: scripts lean on these."""

    OK = 0
    ERROR = 1
    """Anything that went wrong: faults found, an object that is Stalled, wrong arguments."""
    CHANGES = 2
    """``plan``: there is something to do."""
    NO_DAEMON = 3
    """No daemon answers."""
    TIMEOUT = 124
    """``wait`` or ``sync --wait``: the time ran out."""
    INTERRUPTED = 130
    """Ctrl-C."""


class Failure(Exception):
    """Ends the command with ``error: ...`` and ``hint: ...`` on stderr."""

    def __init__(self, error: str, hint: str = "", code: ExitCode = ExitCode.ERROR) -> None:
        super().__init__(error)
        self.error = error
        self.hint = hint
        self.code = code


def split_hint(message: str) -> tuple[str, str]:
    """Messages of the daemon say what, then after the last semicolon what to do."""
    what, _, todo = message.rpartition("; ")
    return (what, todo) if what else (message, "")
