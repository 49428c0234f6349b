"""Which source a path means: commits inside a git work tree, saved files elsewhere (hop 1)."""

from __future__ import annotations

import asyncio
from pathlib import Path

from windlass.sources.base import Source, SourceUnavailableError
from windlass.sources.folder import FolderSource
from windlass.sources.git import GitSource
from windlass.sources.gitcommand import GitError
from windlass.sources.loader import SUFFIXES, Check, Loader, no_check
from windlass.sources.namedfiles import Keep
from windlass.sources.readcache import ReadCache
from windlass.sources.repository import find_repository


async def open_source(
    path: Path,
    *,
    worktree: bool,
    keep: Keep,
    check: Check = no_check,
    cache: ReadCache | None = None,
) -> Source:
    """The source at a path; nothing is read yet. What is read is kept in ``cache``.

    A folder inside a git work tree gives its commits, unless ``worktree``. A folder elsewhere, and
    a single YAML file anywhere, gives what is saved. Raises SourceUnavailableError.
    """
    root = await asyncio.to_thread(_resolve, path)
    if await asyncio.to_thread(root.is_file):
        if root.suffix not in SUFFIXES:
            raise SourceUnavailableError(
                f"{path} is neither a folder nor a .yaml file; give the folder that holds the specs"
            )
        loader = Loader(keep, check, only=root.name, cache=cache)
        return FolderSource(root.parent, loader, id_=f"folder:{root}")
    if not await asyncio.to_thread(root.is_dir):
        raise SourceUnavailableError(f"{path} is no folder; give the folder that holds the specs")
    loader = Loader(keep, check, cache=cache)
    if worktree or not await asyncio.to_thread(_is_below_git, root):
        return FolderSource(root, loader)
    try:
        return GitSource(await find_repository(root), loader)
    except GitError as error:
        if "not a git repository" in error.said:
            return FolderSource(root, loader)
        if "must be run in a work tree" in error.said:
            raise SourceUnavailableError(
                f"{path} lies inside a git directory; give a folder of the work tree"
            ) from error
        raise


def _resolve(path: Path) -> Path:
    try:
        return path.resolve(strict=True)
    except FileNotFoundError as error:
        raise SourceUnavailableError(
            f"{path} does not exist; give the folder that holds the specs"
        ) from error
    except (OSError, RuntimeError) as error:
        raise SourceUnavailableError(
            f"{path} cannot be opened ({error}); give the folder that holds the specs"
        ) from error


def _is_below_git(folder: Path) -> bool:
    return any((parent / ".git").exists() for parent in (folder, *folder.parents))
