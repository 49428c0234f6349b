"""The source of saved files: a folder without git, or one that is followed with ``--worktree``.

Hop 1. A notification only wakes a scan of names, sizes and times; the set is read when two scans
agree, so that a file that is being saved is left alone.
"""

from __future__ import annotations

import asyncio
import getpass
import os
from collections.abc import AsyncIterator
from pathlib import Path

from windlass.sources.base import Source, SourceUnavailableError
from windlass.sources.foldertree import SETTLING, FolderTree
from windlass.sources.loader import Loaded, Loader, Survey
from windlass.sources.tree import TreeChangedError
from windlass.sources.watch import Watch
from windlass.store.base import Snapshot
from windlass_schemas import Key

RESCAN = 30.0
"""Seconds between scans that nothing asked for."""
POLL = 2.0
"""Seconds between scans when there are no notifications."""
CALM = 0.05
"""Seconds between two scans that must agree."""
LONG_CALM = 1.0
"""The same, when documents are gone: half of a file is no reason to remove what the rest said."""
MAX_TRIES = 200
"""Scans after which a folder that never comes to rest counts as unavailable."""


class FolderSource(Source):
    """Follows the saved files below a folder."""

    def __init__(self, root: Path, loader: Loader, *, id_: str | None = None) -> None:
        self.id = id_ or f"folder:{root}"
        self.title = f"saved files of {root}"
        self._root = root
        self._loader = loader
        self._tree = FolderTree(root)
        self._trouble = ""
        self._loaded_notes: tuple[str, ...] = ()
        self._survey: Survey | None = None
        self._keys: frozenset[Key] = frozenset()
        self._one_read = asyncio.Lock()

    async def read(self) -> Snapshot:
        """The whole current set. Raises SourceUnavailableError."""
        async with self._one_read:
            loaded = await self._load()
        self._loaded_notes = loaded.notes
        self._keys = _keys(loaded)
        return Snapshot(
            source=self.id,
            revision=f"worktree:{loaded.digest[:12]}",
            author=_user(),
            documents=loaded.documents,
            faults=loaded.faults,
        )

    async def snapshots(self) -> AsyncIterator[Snapshot | SourceUnavailableError]:
        """The set at the start, then at each change, for ever. A failure is yielded once."""
        told: Snapshot | str | None = None
        while True:
            found = await self._read_or_error()
            if isinstance(found, SourceUnavailableError):
                if told != str(found):
                    told = str(found)
                    yield found
                await asyncio.sleep(POLL)
                continue
            if not _same(told, found):
                told = found
                yield found
                await self._remember()
            if self._survey is not None:
                await self._movement(self._survey)

    def notes(self) -> tuple[str, ...]:
        """What a person should know of this source now."""
        if not self._trouble:
            return self._loaded_notes
        note = (
            f"changes in {self._root} are looked for every {POLL:.0f} s, because the system gives"
            f" no notifications ({self._trouble}); raise fs.inotify.max_user_watches"
        )
        return (note, *self._loaded_notes)

    async def _read_or_error(self) -> Snapshot | SourceUnavailableError:
        try:
            return await self.read()
        except SourceUnavailableError as error:
            return error

    async def _remember(self) -> None:
        """Only now: whoever waits for the set has it."""
        async with self._one_read:
            await asyncio.to_thread(self._loader.remember)

    async def _movement(self, last: Survey) -> None:
        """Return when the set may have changed."""
        async with Watch(self._root / folder for folder in last.folders) as watch:
            self._trouble = watch.trouble
            while await self._is_still(last):
                if not last.settled:
                    await watch.wait(SETTLING)
                    return
                await watch.wait(POLL if watch.trouble else RESCAN)

    async def _is_still(self, last: Survey) -> bool:
        try:
            survey = await asyncio.to_thread(self._loader.survey, self._tree)
        except (TreeChangedError, SourceUnavailableError):
            return False
        return survey.same_as(last)

    async def _load(self) -> Loaded:
        """Read the set once the folder has come to rest."""
        first = None
        for _ in range(MAX_TRIES):
            try:
                survey = await asyncio.to_thread(self._loader.survey, self._tree)
                if first is not None and survey.same_as(first):
                    loaded = await asyncio.to_thread(self._loader.load, self._tree, survey)
                    if not self._keys - _keys(loaded) or await self._stays(survey):
                        self._survey = survey
                        return loaded
                first = survey
            except TreeChangedError:
                first = None
            await asyncio.sleep(CALM)
        raise SourceUnavailableError(
            f"{self._root} does not come to rest; look for a program that keeps writing specs there"
        )

    async def _stays(self, survey: Survey) -> bool:
        await asyncio.sleep(LONG_CALM)
        return await self._is_still(survey)


def _keys(loaded: Loaded) -> frozenset[Key]:
    """Objects that the set speaks of, faulty ones too."""
    good = {document.key for document in loaded.documents}
    return frozenset(good | {fault.key for fault in loaded.faults if fault.key is not None})


def _same(told: Snapshot | str | None, found: Snapshot) -> bool:
    if not isinstance(told, Snapshot):
        return False
    return (told.revision, told.faults) == (found.revision, found.faults)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
