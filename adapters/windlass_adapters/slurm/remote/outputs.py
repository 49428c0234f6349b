"""Outputs of runs, with size and digest: files, and folders as one archive each."""

import base64
import hashlib
import io
import os
import stat
from typing import BinaryIO, Dict, Iterator, List

from windlass_adapters.slurm.remote.files import LISTED
from windlass_adapters.slurm.remote.records import order_of
from windlass_adapters.slurm.remote.site import Answer, Request, Site


class NoOutput(Exception):
    """The path holds nothing that can be kept."""


def collect(site: Site, request: Request, _stream: BinaryIO) -> Answer:
    """Size and digest of each declared output of runs that ended well; small ones come along."""
    answers = {}
    budget = [request["inline"]]
    for tag, token in request["runs"]:
        folder = site.folder(tag, token)
        order = order_of(folder)
        found = {}
        for index in [str(n) for n in order["array"]] if order.get("array") else [""]:
            base = folder
            if index and os.path.lexists(os.path.join(folder, "kept." + index)):
                base = os.path.join(folder, os.readlink(os.path.join(folder, "kept." + index)))
            work = os.path.join(base, "work", index) if index else os.path.join(base, "work")
            for name, relative in order.get("outputs", {}).items():
                key = name + "-" + index if index else name
                try:
                    found[key] = output(work, relative, budget, os.path.join(base, "packed", key))
                except NoOutput as error:
                    found[key] = {"bad": "%s; %s" % (error, what_is_in(work))}
        answers[token] = found
    return {"runs": answers}


def output(work: str, relative: str, budget: List[int], packed: str) -> Answer:
    """One output. ``packed`` is the folder for an archive that is too large to come along."""
    real = os.path.realpath(os.path.join(work, relative))
    inside = os.path.realpath(work)
    if real != inside and not real.startswith(inside + os.sep):
        raise NoOutput("leads out of the working directory; write a regular file there")
    if os.path.isdir(real):
        return archive(real, budget, os.path.join(packed, os.path.basename(real)))
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise NoOutput("was not written")
    except OSError as error:
        raise NoOutput("cannot be read (%s)" % error.strerror)
    with os.fdopen(descriptor, "rb") as file:
        told = os.fstat(file.fileno())
        if not stat.S_ISREG(told.st_mode):
            raise NoOutput("is not a regular file; an output is a file or a folder of files")
        return manifest(file, real, told.st_size, budget)


def archive(folder: str, budget: List[int], packed: str) -> Answer:
    """All files of a folder as one archive; on the disk when it is too large to come along."""
    files = files_below(folder)
    if not files:
        raise NoOutput("is an empty folder; write a file there")
    size = sum(os.path.getsize(path) for path in files.values())
    if size <= budget[0]:
        inline = io.BytesIO()
        pack(files, inline)
        size = inline.tell()
        inline.seek(0)
        if size <= budget[0]:
            return manifest(inline, folder, size, budget)
    if not os.path.exists(packed):  # what is over does not change any more
        os.makedirs(os.path.dirname(packed), mode=0o700, exist_ok=True)
        part = "%s.%d.part" % (packed, os.getpid())
        with open(part, "wb") as file:
            pack(files, file)
        os.rename(part, packed)
    with open(packed, "rb") as whole:
        return manifest(whole, packed, os.path.getsize(packed), budget)


def files_below(folder: str) -> Dict[str, str]:
    """Path of each file below a folder, by its name in it."""
    found = {}
    for parent, folders, names in os.walk(folder):
        links = [each for each in folders if os.path.islink(os.path.join(parent, each))]
        for name in names + links:
            path = os.path.join(parent, name)
            relative = os.path.relpath(path, folder)
            if not stat.S_ISREG(os.lstat(path).st_mode):
                raise NoOutput(
                    "holds %s, which is no regular file; write regular files there" % relative
                )
            if not os.access(path, os.R_OK):
                raise NoOutput("holds %s, which cannot be read" % relative)
            found[relative] = path
    return found


def pack(files: Dict[str, str], into: BinaryIO) -> None:
    """The same archive as a local Job's folder gives: see ``windlass_adapters/bundle.py``."""
    import tarfile  # takes longer to load than most answers take to give

    with tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as whole:
        for name, path in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.mode = 0o644
            with open(path, "rb") as file:
                member.size = os.fstat(file.fileno()).st_size
                whole.addfile(member, file)


def manifest(file: BinaryIO, path: str, size: int, budget: List[int]) -> Answer:
    """Size and digest of what a file holds, and its content while there is room in the answer."""
    hasher, pieces, read = hashlib.sha256(), [], 0
    inline = size <= budget[0]
    for piece in pieces_of(file):
        hasher.update(piece)
        read += len(piece)
        if inline:
            pieces.append(piece)
    data = b"".join(pieces)
    budget[0] -= len(data)
    return {
        "path": path,
        "size": read,
        "digest": "sha256:" + hasher.hexdigest(),
        "data": base64.b64encode(data).decode() if inline else None,
    }


def pieces_of(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.read(1 << 20), b"")


def what_is_in(work: str) -> str:
    names = sorted(
        os.path.relpath(os.path.join(folder, name), work)
        for folder, _, files in os.walk(work)
        for name in files
    )
    if not names:
        return "the working directory is empty"
    more = " and %d more" % (len(names) - LISTED) if len(names) > LISTED else ""
    return "the working directory holds " + ", ".join(names[:LISTED]) + more
