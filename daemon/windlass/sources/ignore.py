"""``.windlassignore``: which files are no specs, in the syntax of ``.gitignore`` (hop 1)."""

from __future__ import annotations

import re

from pathspec import GitIgnoreSpec

IGNORE_FILE = ".windlassignore"
_STARS = re.compile(r"\*+")
MAX_STARS = 3
"""In one name, and of ``**`` in one pattern: with each more, a long path takes ten times longer."""


class Ignore:
    """Says of folders and files whether the loader leaves them out.

    Hidden files and folders are always left out: ``.git``, ``.windlass``, ``.github``, editors'
    lock files. Raises ValueError for a pattern that cannot be read.
    """

    def __init__(self, text: str = "") -> None:
        self.text = text
        lines = [line for line in text.splitlines() if line.strip()]
        for line in lines:
            _refuse_slow(line)
        try:
            self._spec = GitIgnoreSpec.from_lines(lines) if lines else None
        except (re.error, FutureWarning) as error:  # [z-a], say: the library lets it through
            raise ValueError(str(error)) from error
        self._folders: dict[str, bool] = {"": True}

    def enters(self, folder: str) -> bool:
        """Whether specs below that folder count."""
        known = self._folders.get(folder)
        if known is None:
            parent, _, name = folder.rpartition("/")
            known = self.enters(parent) and not name.startswith(".")
            known = known and not self._matches(folder + "/")
            self._folders[folder] = known
        return known

    def takes(self, path: str) -> bool:
        """Whether that file counts."""
        parent, _, name = path.rpartition("/")
        if name.startswith(".") or not self.enters(parent):
            return False
        return self._spec is None or not self._spec.match_file(path)

    def _matches(self, path: str) -> bool:
        return self._spec is not None and self._spec.match_file(path)


def _refuse_slow(pattern: str) -> None:
    if pattern.startswith("#"):
        return
    names = pattern.split("/")
    deep = sum(name == "**" for name in names)
    if deep > MAX_STARS or any(len(_STARS.findall(name)) > MAX_STARS for name in names):
        raise ValueError(f"{pattern[:60]!r} has more than {MAX_STARS} stars in a name or path")
