"""The one place where the client library is made and called: below hops 5 and 7.

Only low-level clients with retries off, and no waiters: retrying is the reconciler's, and a waiter
calls a failed update a success. ``Clients`` is a port, so that the library can be replaced.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Protocol

from windlass_adapters.sagemaker.answers import Answer
from windlass_adapters.sagemaker.params import SageMakerParams
from windlass_adapters.secrets import resolve_secret

CONNECT_TIMEOUT = 5
READ_TIMEOUT = 70
"""Seconds."""
CONNECTIONS = 50


class Clients(Protocol):
    """Clients of AWS's APIs for one account and region."""

    @abstractmethod
    async def call(self, service: str, operation: str, arguments: Mapping[str, object]) -> Answer:
        """One request, sent at most once. Raises what the client library raises."""

    @abstractmethod
    async def close(self) -> None:
        """Close all connections."""


class AioClients(Clients):
    """Clients of an aioboto3 session. Each is opened at its first use and kept."""

    def __init__(self, params: SageMakerParams) -> None:
        self._params = params
        self._stack = AsyncExitStack()
        self._clients: dict[str, object] = {}
        self._opening = asyncio.Lock()
        self._session: object | None = None

    async def call(self, service: str, operation: str, arguments: Mapping[str, object]) -> Answer:
        from botocore import xform_name

        client = await self._client(service)
        method = getattr(client, xform_name(operation))
        answer: Answer = await method(**arguments)
        body = answer.get("Body") or answer.get("Payload")
        if body is not None and hasattr(body, "read"):
            async with body as stream:  # type: ignore[attr-defined]  # the library has no types
                return {**answer, "Body": await stream.read()}
        return answer

    async def close(self) -> None:
        self._clients.clear()
        await self._stack.aclose()

    async def _client(self, service: str) -> object:
        if service not in self._clients:
            async with self._opening:
                if service not in self._clients:
                    self._clients[service] = await self._open(service)
        return self._clients[service]

    async def _open(self, service: str) -> object:
        import aioboto3
        from aiobotocore.config import AioConfig

        params = self._params
        if self._session is None:
            self._session = await asyncio.to_thread(
                aioboto3.Session,
                region_name=params.region,
                profile_name=params.profile,
                **_credentials(params),
            )
        config = AioConfig(
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            max_pool_connections=CONNECTIONS,
            s3={"addressing_style": "path"} if params.endpoint_url else None,
            user_agent_extra="windlass",
        )
        opened = self._session.client(  # type: ignore[attr-defined]  # the library has no types
            service, endpoint_url=params.endpoint_url, config=config
        )
        client: object = await self._stack.enter_async_context(opened)
        return client


def _credentials(params: SageMakerParams) -> dict[str, str]:
    """Keys by reference, when the Target names some; else the library's own chain finds them."""
    given = params.credentials
    if given is None:
        return {}
    found = {
        "aws_access_key_id": resolve_secret(given.access_key_id),
        "aws_secret_access_key": resolve_secret(given.secret_access_key),
    }
    if given.session_token is not None:
        found["aws_session_token"] = resolve_secret(given.session_token)
    return found
