"""What SageMaker takes is a ``.tar.gz``: look into one, or make one, always with the same bytes.

Equal content gives equal archives, so that an upload can be gone on with after a restart. Blocking;
callers in the event loop use a thread.
"""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from windlass_adapters.base import TerminalError
from windlass_schemas import Reason

FORMATS = ("onnx", "pytorch", "sklearn", "tensorflow")
_ARCHIVES = (".tar.gz", ".tgz")
_LIMIT = 10_000
"""Files that an archive may list."""


def _ends(*suffixes: str) -> Callable[[str], bool]:
    return lambda name: name.lower().endswith(suffixes)


_NEEDED: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "onnx": (_ends(".onnx"), "a file that ends in .onnx"),
    "pytorch": (_ends(".pt", ".pth", ".bin", ".safetensors"), "a .pt, .pth or .safetensors file"),
    "sklearn": (_ends(".joblib", ".pkl", ".pickle", ".skops"), "a .joblib, .pkl or .skops file"),
    "tensorflow": (_ends("saved_model.pb", ".keras"), "a saved_model.pb, usually in a folder 1/"),
}
_BARE: Mapping[str, tuple[str, ...]] = {
    "onnx": (".onnx",),
    "pytorch": (".pt", ".pth", ".safetensors"),
    "sklearn": (".joblib", ".pkl", ".pickle", ".skops"),
    "tensorflow": (".keras",),
}
"""Single files that may be packed as they are."""


def is_archive(name: str) -> bool:
    """Whether a file's name says that it is packed already."""
    return name.lower().endswith(_ARCHIVES)


def check_name(name: str, format: str) -> str:
    """What is wrong with a file of that name as an artifact of that format; empty when nothing."""
    if is_archive(name) or name.lower().endswith(_BARE[format]):
        return ""
    single = " or ".join(_BARE[format])
    return f"{name} is no {format} artifact for SageMaker; give a .tar.gz, or a single {single}"


def check_archive(path: Path, name: str, format: str) -> None:
    """Look into a ``.tar.gz``. Raises TerminalError(INVALID_ARTIFACT) that says what is wrong."""
    try:
        with gzip.open(path) as stream:
            members = _members(cast(BinaryIO, stream), name)
            while stream.read(1 << 20):  # to the end: a cut-off archive has no checksum there
                pass
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise _invalid(f"{name} is no readable .tar.gz ({error}); pack it anew") from None
    for member in members:
        parts = PurePosixPath(member.name).parts
        if member.name.startswith("/") or ".." in parts or not (member.isfile() or member.isdir()):
            raise _invalid(
                f"{name} holds {member.name!r}, which leads out of the folder or is no plain file"
            )
    fits, wanted = _NEEDED[format]
    files = [member.name for member in members if member.isfile()]
    if not any(fits(file) for file in files):
        held = ", ".join(files[:10]) or "nothing"
        raise _invalid(f"{name} is no {format} model: it needs {wanted}; it holds {held}")


def _members(stream: BinaryIO, name: str) -> list[tarfile.TarInfo]:
    found = []
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            found.append(member)
            if len(found) > _LIMIT:
                raise _invalid(f"{name} holds more than {_LIMIT} files")
    return found


def check_single(path: Path, name: str, format: str) -> None:
    """A bare file has nothing to look into, but it is not empty."""
    if not path.stat().st_size:
        raise _invalid(f"{name} is empty; mend what writes it as a {format} model")


def _invalid(message: str) -> TerminalError:
    return TerminalError(message, reason=Reason.INVALID_ARTIFACT)


def pack(files: Mapping[str, Path], destination: Path) -> Path:
    """Write ``files``, by path in the archive, as one ``.tar.gz``, unless it is there already."""
    if destination.exists():
        return destination
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=destination.parent, delete=False) as file:
        try:
            # Neither a name nor a time in the header: equal content, equal bytes.
            with gzip.GzipFile("", "wb", 6, cast(BinaryIO, file), mtime=0) as zipped:
                _write(files, zipped)
            Path(file.name).replace(destination)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    return destination


def _write(files: Mapping[str, Path], stream: io.BufferedIOBase) -> None:
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size = files[name].stat().st_size
            member.mode = 0o755 if os.access(files[name], os.X_OK) else 0o644
            with files[name].open("rb") as content:
                archive.addfile(member, content)


def sizes(total: int, part: int, most: int) -> Sequence[tuple[int, int]]:
    """(offset, length) of each part of an upload; at most ``most`` parts."""
    length = max(part, -(-total // most))
    return [(at, min(length, total - at)) for at in range(0, total, length)]
