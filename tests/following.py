"""Follow a source in a test: what it yields, as a queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from windlass.sources.base import Source, SourceUnavailableError
from windlass.store.base import Snapshot


class Following:
    """What a source has yielded and nobody has taken yet."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Snapshot | SourceUnavailableError] = asyncio.Queue()

    async def snapshot(self, seconds: float = 10) -> Snapshot:
        """The next thing, which must be a snapshot."""
        async with asyncio.timeout(seconds):
            found = await self.queue.get()
        assert isinstance(found, Snapshot), found
        return found

    async def recovery(self, seconds: float = 10) -> Snapshot:
        """The next snapshot; the source may have been away for a moment before it."""
        async with asyncio.timeout(seconds):
            while not isinstance(found := await self.queue.get(), Snapshot):
                pass
        return found

    async def failure(self, seconds: float = 10) -> str:
        """The next thing, which must be a failure: its message."""
        async with asyncio.timeout(seconds):
            found = await self.queue.get()
        assert isinstance(found, SourceUnavailableError), found
        return str(found)


@asynccontextmanager
async def following(source: Source) -> AsyncIterator[Following]:
    """Follow a source while the block runs."""
    seen = Following()

    async def follow() -> None:
        async for found in source.snapshots():
            seen.queue.put_nowait(found)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(follow())
        yield seen
        task.cancel()


def names(found: Snapshot) -> list[str]:
    """The names of the documents of a snapshot."""
    return [document.resource.metadata.name for document in found.documents]
