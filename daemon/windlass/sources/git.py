"""The source of commits: a folder inside a git work tree, followed at HEAD (hop 1).

Everything is read from git's object store at one commit, so that a snapshot is whole and a saved
file that is not committed changes nothing. Notifications only wake a look at a few small files.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from windlass.sources.base import Source, SourceUnavailableError
from windlass.sources.gitcommand import GitError
from windlass.sources.gittree import Blobs, GitTree, Listings
from windlass.sources.loader import Loader
from windlass.sources.repository import MAX_LISTED, Repository
from windlass.sources.watch import Watch
from windlass.store.base import Snapshot

CHECK = 2.0
"""Seconds between looks at HEAD that nothing asked for."""
QUICK, SLOW = 8, 100
"""Milliseconds of a step in waiting for commits, and for files that are not committed."""
READ_TIMEOUT = 600.0
"""Seconds that reading one commit may take."""
NOTES_PAUSE = 2.0
"""Seconds between two looks at the work tree, at least."""
NOTES_SHARE = 20
"""A look at the work tree may take one part in so many of the time."""
NOTES_RESCAN = 30.0
"""Seconds between looks at the work tree that nothing asked for."""


class GitSource(Source):
    """Follows the commits of HEAD."""

    def __init__(self, repository: Repository, loader: Loader) -> None:
        self.id = f"folder:{repository.folder}"  # of saved files too: one folder, one owner
        self.title = f"commits of {repository.folder}"
        self._repository = repository
        self._loader = loader
        self._listings = Listings()
        self._loaded_notes: tuple[str, ...] = ()
        self._uncommitted = ""
        self._folders: frozenset[str] = frozenset()
        """Folders of the last commit that was read."""
        self._one_read = asyncio.Lock()

    async def read(self) -> Snapshot:
        """The set at HEAD, with fresh notes. Raises SourceUnavailableError."""
        snapshot = await self._read()
        await self._look_at_worktree()
        return snapshot

    async def snapshots(self) -> AsyncIterator[Snapshot | SourceUnavailableError]:
        """The set at the start, then at each new commit, for ever. A failure is yielded once."""
        told = ""
        while True:
            stamp = await asyncio.to_thread(self._repository.stamp)
            found = await self._read_or_error()
            key = str(found) if isinstance(found, SourceUnavailableError) else found.revision
            if key != told:
                told = key
                yield found
                await self._remember()
            await self._moved(stamp, once=isinstance(found, SourceUnavailableError))

    def notes(self) -> tuple[str, ...]:
        """What a person should know of this source now."""
        return (self._uncommitted, *self._loaded_notes) if self._uncommitted else self._loaded_notes

    async def _read_or_error(self) -> Snapshot | SourceUnavailableError:
        try:
            return await self._read()
        except SourceUnavailableError as error:
            return error

    async def _read(self) -> Snapshot:
        async with self._one_read:
            return await self._read_head()

    async def _read_head(self) -> Snapshot:
        commit = await self._repository.head()
        entries = self._listings.read(await self._repository.listing(commit))
        self._folders = _folders_of(entries)
        blobs = Blobs(self._repository.top)
        try:
            async with asyncio.timeout(READ_TIMEOUT):
                loaded = await asyncio.to_thread(self._loader.load, GitTree(entries, blobs))
        except TimeoutError as error:
            raise SourceUnavailableError(
                f"commit {commit.short} of {self._repository.top} could not be read in"
                f" {READ_TIMEOUT:.0f} s; look at its disk"
            ) from error
        finally:
            blobs.close()
        self._loaded_notes = loaded.notes
        return Snapshot(self.id, commit.id, commit.author, loaded.documents, loaded.faults)

    async def _remember(self) -> None:
        """Only now: whoever waits for the set has it."""
        async with self._one_read:
            await asyncio.to_thread(self._loader.remember)

    async def _moved(self, stamp: tuple[str, ...], *, once: bool = False) -> None:
        """Return when HEAD may name another commit; keep the notes fresh meanwhile."""
        async with asyncio.TaskGroup() as group:
            notes = group.create_task(self._keep_notes())
            async with Watch(self._repository.watched(), QUICK) as watch:
                while await asyncio.to_thread(self._repository.stamp) == stamp:
                    await watch.wait(CHECK)
                    if once:
                        break
            notes.cancel()

    async def _keep_notes(self) -> None:
        folders = [self._repository.folder / folder for folder in self._folders]
        async with Watch((f for f in folders if f.is_dir()), SLOW) as watch:
            while True:
                took = await self._look_at_worktree()
                await asyncio.sleep(max(NOTES_PAUSE, NOTES_SHARE * took))
                await watch.wait(NOTES_RESCAN)

    async def _look_at_worktree(self) -> float:
        """Note what is saved and not committed; the seconds that it took."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        try:
            changed = await self._repository.uncommitted()
        except GitError:
            changed = ()  # the next read says why
        self._uncommitted = _uncommitted_note(
            [p for p in changed if not p.startswith(".windlass/")]
        )
        return loop.time() - begin


def _folders_of(paths: Iterable[str]) -> frozenset[str]:
    """All folders on the way to the paths, the root included."""
    folders = {""}
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return frozenset(folders)


def _uncommitted_note(paths: list[str]) -> str:
    if not paths:
        return ""
    listed = ", ".join(paths[:MAX_LISTED])
    more = f" and {len(paths) - MAX_LISTED} more" if len(paths) > MAX_LISTED else ""
    return (
        f"uncommitted changes that are not applied: {listed}{more};"
        " commit them, or start with --worktree"
    )
