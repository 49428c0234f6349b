"""Files that a run needs over there, by content: sent once, whatever needs them (hop 7).

Small ones travel with the submission, in one stream. Large ones go as files, a turn at a time, go
on where they stopped, and get their name only when their content was checked over there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import asyncssh
from pydantic import JsonValue

from windlass_adapters.artifacts import ArtifactStore
from windlass_adapters.base import TransientError, WaitingError
from windlass_adapters.slurm.connection import Connection
from windlass_adapters.slurm.login import Login
from windlass_schemas import Reason

SMALL = 256 * 1024
"""Bytes up to which a file travels with the submission."""
STREAM = 16 << 20
"""Bytes of small files in one submission."""
PIECE = 4 << 20
TURN = 60.0
"""Seconds of transfer in one call."""


class Staging:
    """What the cluster has of our files, and how it gets the rest."""

    def __init__(self, login: Login, connection: Connection, store: ArtifactStore) -> None:
        self._login = login
        self._connection = connection
        self._store = store
        self._there: set[str] = set()
        self._uploading = asyncio.Lock()

    async def prepare(self, digests: Iterable[str]) -> None:
        """See to the large files. Raises WaitingError while one is on its way."""
        sizes = await asyncio.to_thread(self._sizes, sorted(set(digests) - self._there))
        large = {digest: size for digest, size in sizes.items() if size > SMALL}
        if not large:
            return
        async with self._uploading:
            missing = [d for d in await self._missing(list(large)) if d in large]
            for digest in missing:
                await self._upload(digest, large[digest])
            if missing:
                uploaded: dict[str, JsonValue] = {d: _part(d) for d in missing}
                if still := await self._missing(missing, uploaded):
                    raise TransientError(f"{still[0]} did not arrive; trying again")
            self._there |= large.keys()

    async def small(self, digests: Iterable[str]) -> tuple[list[list[JsonValue]], list[bytes]]:
        """(digest, size) and content of the files that must come along."""
        wanted = sorted(set(digests) - self._there)
        return await asyncio.to_thread(self._read, wanted)

    def arrived(self, digests: Iterable[str]) -> None:
        """They are over there now."""
        self._there.update(digests)

    def lost(self, digests: Iterable[str]) -> None:
        """Somebody cleaned that disk: they are sent again."""
        self._there.difference_update(digests)

    def _sizes(self, digests: Sequence[str]) -> dict[str, int]:
        try:
            return {digest: self._store.path(digest).stat().st_size for digest in digests}
        except FileNotFoundError as error:
            raise TransientError(
                f"{Path(str(error.filename)).name} is not in the artifact store; put it back, or"
                " let what makes it run again"
            ) from None

    def _read(self, digests: Sequence[str]) -> tuple[list[list[JsonValue]], list[bytes]]:
        heads: list[list[JsonValue]] = []
        contents: list[bytes] = []
        total = 0
        for digest, size in self._sizes(digests).items():
            if size <= SMALL and total + size <= STREAM:
                contents.append(self._store.read(digest))
                heads.append([digest, size])
                total += size
        return heads, contents

    async def _missing(
        self, digests: Sequence[str], uploaded: dict[str, JsonValue] | None = None
    ) -> list[str]:
        request: dict[str, JsonValue] = {"digests": list(digests), "uploaded": uploaded or {}}
        found = (await self._login.call("have", request)).get("missing")
        return [str(each) for each in found] if isinstance(found, list) else list(digests)

    async def _upload(self, digest: str, size: int) -> None:
        """Send one file, or as much of it as goes in one turn."""
        until = time.monotonic() + TURN
        path = f"{self._login.root}/cas/{_part(digest)}"
        sent = 0
        with self._store.path(digest).open("rb") as file:
            async with self._connection.files() as remote:
                sent = await _size(remote, path)
                sent = sent if sent <= size else 0
                mode = "r+b" if sent else "wb"
                async with remote.open(path, mode) as target:
                    while sent < size and time.monotonic() < until:
                        await asyncio.to_thread(file.seek, sent)
                        piece = await asyncio.to_thread(file.read, PIECE)
                        async with asyncio.timeout(60):
                            await target.write(piece, sent)
                        sent += len(piece)
        if sent < size:
            raise WaitingError(
                f"a file of {size >> 20} MiB is on its way to the cluster: {100 * sent // size} %",
                reason=Reason.WAITING,
            )


async def _size(remote: asyncssh.SFTPClient, path: str) -> int:
    try:
        return (await remote.stat(path)).size or 0
    except asyncssh.SFTPNoSuchFile:
        return 0


def _part(digest: str) -> str:
    """The name of an upload that is not whole yet."""
    return f".part-{digest.removeprefix('sha256:')}"
