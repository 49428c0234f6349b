"""Small files, read without fear and written at once."""

import os
import time
from typing import List, Optional

A_DAY = 86400.0
LISTED = 20
"""Names that a message lists at most."""


def read(path: str, limit: int = 65536) -> Optional[str]:
    """A small text file; None when there is none."""
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return None


def write(path: str, data: bytes, mode: int = 0o600) -> None:
    """Put a file in its place at once."""
    temporary = "%s.%d.part" % (path, os.getpid())
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.rename(temporary, path)


def make_folder(path: str) -> None:
    """See that a folder is there. Most are: looking costs less than being told so."""
    if not os.path.isdir(path):
        os.makedirs(path, mode=0o700, exist_ok=True)


def link_of(path: str) -> Optional[str]:
    try:
        return os.readlink(path)
    except OSError:
        return None


def age_of(path: str) -> float:
    """Seconds since it was made, by the file's own clock and ours."""
    try:
        return max(0.0, time.time() - os.lstat(path).st_mtime)
    except OSError:
        return 0.0


def made_at(path: str) -> float:
    """When it was made, by the clock of its disk; 0 for what is not there."""
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return 0.0


def listing(path: str) -> List[str]:
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []


def throw_away(folder: str, trash: str) -> None:
    """Out of everybody's sight at once; removed later."""
    name = "%s.%d.%d" % (os.path.basename(folder), os.getpid(), time.time())
    os.rename(folder, os.path.join(trash, name))
