"""Secrets are references, ``env:NAME`` or ``file:/path``, and are read at the moment of use.

What is read here goes straight into a call or a child's environment: never into the store, a log,
an event, a plan or an error message.
"""

from __future__ import annotations

import os
from pathlib import Path

from windlass_adapters.base import TerminalError
from windlass_schemas import Reason


def resolve_secret(value: str) -> str:
    """The text that a value stands for; a value without ``env:`` or ``file:`` stands for itself.

    Raises TerminalError that names the reference, never its content.
    """
    scheme, _, rest = value.partition(":")
    if scheme == "env":
        if rest not in os.environ:
            raise TerminalError(
                f"{value} is not set in the environment of the daemon; set it and restart",
                reason=Reason.SECRET_NOT_FOUND,
            )
        return os.environ[rest]
    if scheme == "file":
        try:
            return Path(rest).read_text().rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise TerminalError(
                f"{value} cannot be read ({type(error).__name__}); put the secret there",
                reason=Reason.SECRET_NOT_FOUND,
            ) from None
    return value
