"""Several files as one artifact: a tar archive, the same bytes for the same files.

A model whose weights lie beside it (ONNX external data) is such a bundle, and so is the folder that
a Job leaves as an output. It is unpacked once, beside the artifact store, and loaded from there:
weights in files of their own are mapped and not read into the memory twice. Who serves a
model holds a lock on its folder; what nobody holds is collected, and unpacked again when wanted.
Standard library only: a run keeps its own outputs, in a process that must start fast.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO

from windlass_adapters.content import path_of

_MOST = 10_000
"""Files of one bundle."""
_UNPACKED = "unpacked"
SPARED = 3600.0
"""Seconds since an unpacked archive was last asked for, in which it is not collected: whoever asked
may not hold it yet."""


class BundleError(Exception):
    """The archive is none that can be taken, or holds no model."""


def pack(files: Mapping[str, Path], into: BinaryIO) -> None:
    """Write an archive of files by their names in it. Raises OSError."""
    with tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, path in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.mode = 0o644
            with path.open("rb") as file:
                member.size = os.fstat(file.fileno()).st_size
                archive.addfile(member, file)


def files_below(folder: Path) -> dict[str, Path]:
    """The files of a folder, by their names in it. Raises BundleError for what is no file."""
    found = {}
    for parent, folders, names in os.walk(folder):
        for name in (*names, *(each for each in folders if (Path(parent) / each).is_symlink())):
            path = Path(parent) / name
            relative = str(path.relative_to(folder))
            if path.is_symlink() or not path.is_file():
                raise BundleError(f"holds {relative}, which is no regular file")
            found[relative] = path
    return found


def model_file(root: Path, digest: str) -> Path:
    """The model of an artifact in the store: the artifact itself, or the model in its archive.

    Blocking; the archive is unpacked the first time. Raises BundleError, OSError.
    """
    artifact = path_of(root, digest)
    if not _is_archive(artifact):
        return artifact
    folder = root / _UNPACKED / digest.partition(":")[2]
    try:
        os.utime(folder)
    except FileNotFoundError:
        _unpack(artifact, folder)
        collect(root)
    return _only_model(folder)


def collect(root: Path) -> None:
    """Remove the unpacked archives that nobody holds, and what an unpacking cut off has left."""
    for folder in (root / _UNPACKED).glob("*"):
        with suppress(OSError):  # held, or another was quicker
            _remove(folder)


def _remove(folder: Path) -> None:
    """Nothing, if it was asked for lately. Raises OSError if somebody holds a folder of it."""
    with ExitStack() as held:
        for parent, _, _ in os.walk(folder):
            opened = os.open(parent, os.O_RDONLY | os.O_DIRECTORY)
            held.callback(os.close, opened)
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if time.time() - folder.stat().st_mtime > SPARED:
            # By another name first: half a folder must not pass for a whole one.
            draft = folder.with_name(f".draft-{folder.name.lstrip('.')}")
            shutil.rmtree(folder.rename(draft))


def _is_archive(path: Path) -> bool:
    return path.is_file() and tarfile.is_tarfile(path)


def _unpack(archive: Path, folder: Path) -> None:
    """Whole or not at all, also when two do it at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".draft-"))
    try:
        with tarfile.open(archive) as opened:
            for count, member in enumerate(opened):
                _check(member, count)
                opened.extract(member, draft, filter="data")
        draft.chmod(0o755)
        try:
            draft.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    except tarfile.TarError as error:
        raise BundleError(f"the archive cannot be unpacked: {error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _check(member: tarfile.TarInfo, count: int) -> None:
    if not (member.isreg() or member.isdir()):
        raise BundleError(f"the archive holds {member.name}, which is no regular file")
    if count >= _MOST:
        raise BundleError(f"the archive holds more than {_MOST} files")


def _only_model(folder: Path) -> Path:
    found = sorted(folder.rglob("*.onnx"))
    if len(found) != 1:
        names = ", ".join(str(each.relative_to(folder)) for each in found) or "none"
        raise BundleError(f"the archive must hold one .onnx file; it holds {names}")
    return found[0]
