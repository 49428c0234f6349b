"""One call to AWS: the guard of the account, the API's turn, a bound in time, the error's meaning.

Everything in this package that talks to AWS goes through ``Api.call``, so that the number of calls
can be counted and kept small.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping

from windlass_adapters.base import TransientError
from windlass_adapters.sagemaker.account import Account
from windlass_adapters.sagemaker.answers import Answer, parts, text
from windlass_adapters.sagemaker.errors import (
    AbsentError,
    CredentialsError,
    ExistsError,
    ThrottledError,
    adapter_error,
)
from windlass_adapters.sagemaker.limits import Limits, Seconds
from windlass_adapters.sagemaker.session import Clients

TIMEOUT = 30.0
"""Seconds that one call may take."""
INVOKE_TIMEOUT = 75.0
"""Seconds for an inference: SageMaker gives a model 60."""
_INVOKES = frozenset({"InvokeEndpoint"})
_READS = ("Describe", "List", "Get", "Search", "Head", "Invoke", "BatchGet")
PAGE = 100
"""What one page of a list holds at most."""

SAGEMAKER = "sagemaker"
SCALING = "application-autoscaling"


class Api:
    """Calls, counted by operation."""

    def __init__(
        self, clients: Clients, account: str, limits: Limits, now: Seconds = time.monotonic
    ) -> None:
        self._clients = clients
        self._limits = limits
        self.now = now
        self.account = Account(account, self._caller, now)
        self.calls: Counter[tuple[str, str]] = Counter()
        """By operation and result: ``ok`` or the class of the error."""

    async def call(self, service: str, operation: str, **arguments: object) -> Answer:
        """One request. Raises AdapterError, of the finer kinds of ``errors`` where it can tell."""
        await self.account.check()
        return await self._send(service, operation, arguments)

    async def sagemaker(self, operation: str, **arguments: object) -> Answer:
        """One request to SageMaker."""
        return await self.call(SAGEMAKER, operation, **arguments)

    async def pages(
        self, service: str, operation: str, member: str, **arguments: object
    ) -> AsyncIterator[Answer]:
        """Each item of a list, page after page."""
        token: dict[str, object] = {}
        while True:
            answer = await self.call(service, operation, **arguments, **token)
            for item in parts(answer, member):
                yield item
            found = text(answer, "NextToken") or text(answer, "PaginationToken")
            if not found:
                return
            name = "PaginationToken" if "PaginationToken" in answer else "NextToken"
            token = {name: found}

    async def _caller(self) -> str:
        return text(await self._send("sts", "GetCallerIdentity", {}), "Account")

    async def _send(self, service: str, operation: str, arguments: Mapping[str, object]) -> Answer:
        bucket = await self._limits.take(f"s3:{operation}" if service == "s3" else operation)
        try:
            async with asyncio.timeout(INVOKE_TIMEOUT if operation in _INVOKES else TIMEOUT):
                answer = await self._clients.call(service, operation, arguments)
        except asyncio.CancelledError:
            raise
        except Exception as raised:
            error = adapter_error(raised, operation, changes=not operation.startswith(_READS))
            self.calls[operation, _result(error)] += 1
            if isinstance(error, ThrottledError):
                bucket.halve()
            if isinstance(error, CredentialsError):
                self.account.trip(error)
            raise error from raised
        bucket.grow()
        self.calls[operation, "ok"] += 1
        return answer


def _result(error: Exception) -> str:
    """``absent`` and ``exists`` are answers, and no failures."""
    for kind in (AbsentError, ExistsError, ThrottledError, TransientError):
        if isinstance(error, kind):
            return kind.__name__.removesuffix("Error").lower()
    return "refused"
