"""Whose account it is, and whether its credentials are taken: asked before anything else.

A wrong account would answer "not there" to every question, and then everything would be made again
in it. Expired credentials are a matter of the account: a breaker opens, one question a minute asks
whether they are good again, and no object is marked failed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from windlass_adapters.base import AdapterError, TerminalError
from windlass_adapters.sagemaker.errors import CredentialsError
from windlass_adapters.sagemaker.limits import Seconds
from windlass_schemas import Reason

ASK_AGAIN = 60.0
"""Seconds between two questions while the breaker is open."""
TRUSTED_FOR = 900.0
"""Seconds for which an answer holds: credentials may become another account's."""

Ask = Callable[[], Awaitable[str]]
"""The account id that AWS gives. Raises AdapterError."""


class Account:
    """The guard of one Target."""

    def __init__(self, expected: str, ask: Ask, now: Seconds) -> None:
        self._expected = expected
        self._ask = ask
        self._now = now
        self._known_until = float("-inf")
        self._asked_at = float("-inf")
        self._open: AdapterError | None = None
        self._lock = asyncio.Lock()

    @property
    def refused(self) -> bool:
        """Whether the breaker is open."""
        return self._open is not None

    async def check(self) -> None:
        """Go on only in the right account. Raises TerminalError and CredentialsError."""
        if self._open is None and self._now() < self._known_until:
            return
        async with self._lock:
            if self._open is None and self._now() < self._known_until:
                return
            if self._open is not None and self._now() - self._asked_at < ASK_AGAIN:
                raise self._again(self._open)
            self._asked_at = self._now()
            try:
                found = await self._ask()
            except AdapterError as error:
                if isinstance(error, CredentialsError):
                    self._open = error
                raise
            if found != self._expected:
                self._open = TerminalError(
                    f"these credentials are of account {found} and the Target says"
                    f" {self._expected}; nothing was touched. Mend params.account, or the"
                    " credentials",
                    reason=Reason.WRONG_ACCOUNT,
                )
                raise self._again(self._open)
            self._open = None
            self._known_until = self._now() + TRUSTED_FOR

    def trip(self, error: CredentialsError) -> None:
        """A call was refused for its credentials."""
        self._open = error
        self._asked_at = self._now()
        self._known_until = float("-inf")

    @staticmethod
    def _again(error: AdapterError) -> AdapterError:
        return type(error)(str(error), reason=error.reason)
