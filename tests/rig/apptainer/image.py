"""An image: where its root file system is in the file, and that file system unpacked once."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

HEADER = struct.Struct("<32s10s3s3s16s8q")
DESCRIPTOR = struct.Struct("<iBIIIqqqqqqq128s384s")
PARTITION, PRIMARY, SQUASHFS = 0x4004, 2, 1


class Fatal(Exception):
    """What Apptainer ends with 255 for."""


class Unsupported(Exception):
    """What the real program may do and this double does not."""


@dataclass(frozen=True)
class Image:
    """An image that exists."""

    path: Path
    offset: int | None
    """Of the squashfs in the file; None for a directory."""

    def unpack(self, cache: Path) -> Path:
        """The root file system as a directory; unpacked files are shared by all runs."""
        if self.offset is None:
            return self.path
        with self.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        there = cache / f"{os.getuid()}-{digest}"
        if there.is_dir():
            return there
        with (cache / f"{there.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not there.is_dir():
                part = Path(tempfile.mkdtemp(dir=cache))
                self._unsquash(part / "root")
                (part / "root").rename(there)
                shutil.rmtree(part)
        return there

    def copy(self, to: Path) -> Path:
        """A root file system of its own, which may be written to."""
        if self.offset is None:
            shutil.copytree(self.path, to, symlinks=True)
        else:
            self._unsquash(to)
        return to

    def _unsquash(self, to: Path) -> None:
        flags = ["-no-xattrs", "-no-progress", "-quiet", "-offset", str(self.offset)]
        done = subprocess.run(
            ["unsquashfs", *flags, "-dest", str(to), str(self.path)], capture_output=True, text=True
        )
        if done.returncode:
            raise Fatal(f"while mounting image {self.path}: {done.stderr.strip()}")


def opened(name: str) -> Image:
    """The image of that name."""
    if "://" in name:
        raise Unsupported(f"an image by its URI: {name}")
    path = Path(name).absolute()
    if path.is_dir():
        return Image(path, None)
    if not path.is_file():
        what = f"failed to retrieve path for {path}: lstat {path}: no such file or directory"
        raise Fatal(f"could not open image {path}: {what}")
    with path.open("rb") as file:
        head = file.read(HEADER.size)
        if head[:4] == b"hsqs":
            return Image(path, 0)
        if len(head) < HEADER.size or head[32:42] != b"SIF_MAGIC\0":
            raise Fatal(f"could not open image {path}: image format not recognized")
        return Image(path, _primary(path, head))


def _primary(path: Path, head: bytes) -> int:
    size = path.stat().st_size
    fields = HEADER.unpack(head)
    total, table = fields[8], fields[9]
    if not 0 < total <= 4096 or table < HEADER.size:
        raise Fatal(f"could not open image {path}: implausible descriptor table")
    with path.open("rb") as file:
        file.seek(table)
        raw = file.read(total * DESCRIPTOR.size)
        if len(raw) < total * DESCRIPTOR.size:
            raise Fatal(f"could not open image {path}: while loading SIF: unexpected EOF")
        for each in DESCRIPTOR.iter_unpack(raw):
            kind, used, offset, length, extra = each[0], each[1], each[5], each[6], each[13]
            system, role = struct.unpack_from("<ii", extra)
            if not used or kind != PARTITION or role != PRIMARY:
                continue
            if system != SQUASHFS:
                raise Unsupported(f"{path}: a primary partition that is not a plain squashfs")
            if offset + length > size:
                raise Fatal(f"could not open image {path}: unexpected EOF in its partition")
            file.seek(offset)
            if file.read(4) != b"hsqs":
                raise Fatal(f"could not open image {path}: no squashfs in its partition")
            return int(offset)
    raise Fatal(f"could not open image {path}: no primary system partition found")
