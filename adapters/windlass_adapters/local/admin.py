"""The serving process's admin API, over its unix socket (hops 5 and 7)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from windlass_adapters.base import TerminalError, TransientError
from windlass_schemas import Reason, Signature

TIMEOUT = 5.0
"""Seconds for an answer; it answers at once, whatever a model does."""
_SOCKET_PATH_LIMIT = 100
"""Bytes that a unix socket's address holds, with some room."""


class View(BaseModel):
    """One deployment, in the serving process's words."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    install: str
    uid: str
    key: str
    state: Literal["Progressing", "Live", "Failed", "Degraded"]
    digest: str | None = None
    pending_digest: str | None = None
    failed_digest: str | None = None
    reason: Reason | None = None
    message: str | None = None
    signature: Signature | None = None
    replicas: int = 1
    hung: int = 0
    lost: int = 0


class _Views(BaseModel):
    deployments: tuple[View, ...]


class Admin:
    """Speaks to whatever listens on one socket. Each call may raise TransientError."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def list(self) -> tuple[View, ...]:
        """All deployments, of every owner."""
        reply = await self._call("GET", "/deployments")
        return _parse(_Views, reply).deployments

    async def put(self, name: str, body: dict[str, JsonValue]) -> View:
        """Ask for a deployment. Raises TerminalError where another object holds the name."""
        return _parse(View, await self._call("PUT", f"/deployments/{name}", body))

    async def delete(self, name: str, uid: str) -> None:
        """Ask for removal; absent is success."""
        await self._call("DELETE", f"/deployments/{name}?uid={uid}", absent_is_fine=True)

    async def _call(
        self,
        method: str,
        path: str,
        body: dict[str, JsonValue] | None = None,
        *,
        absent_is_fine: bool = False,
    ) -> httpx.Response:
        try:
            async with self._client() as client:
                reply = await client.request(method, path, json=body)
        except (httpx.HTTPError, OSError) as error:
            raise TransientError(
                f"the serving process does not answer on {self._socket}:"
                f" {str(error) or type(error).__name__}; see serving.log beside it"
            ) from None
        if reply.is_success or (absent_is_fine and reply.status_code == httpx.codes.NOT_FOUND):
            return reply
        said = f"the serving process answered {reply.status_code} to {method} {path}: {reply.text}"
        raise TransientError(said) if reply.is_server_error else TerminalError(said)

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx.AsyncClient]:
        """A connection for one call: nothing is kept that a restart over there could spoil."""
        with _short(self._socket) as path:
            transport = httpx.AsyncHTTPTransport(uds=path, verify=False)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://serving", timeout=TIMEOUT, trust_env=False
            ) as client:
                yield client


@contextmanager
def _short(socket: Path) -> Iterator[str]:
    """The socket by a name that fits into an address, however deep the state folder lies."""
    if len(os.fsencode(socket)) <= _SOCKET_PATH_LIMIT:
        yield str(socket)
        return
    folder = os.open(socket.parent, os.O_PATH)
    try:
        yield f"/proc/self/fd/{folder}/{socket.name}"
    finally:
        os.close(folder)


M = TypeVar("M", bound=BaseModel)


def _parse(model: type[M], reply: httpx.Response) -> M:
    try:
        return model.model_validate_json(reply.content)
    except ValidationError as error:
        raise TransientError(
            f"the serving process answers in words of another version: {error.errors()[0]['msg']};"
            " stop it, Windlass starts a new one"
        ) from None
