"""Files by content, checked before they get their name."""

import hashlib
import os
import re
from typing import Any, BinaryIO, List

from windlass_adapters.slurm.remote.abreast import abreast
from windlass_adapters.slurm.remote.files import A_DAY, age_of, make_folder
from windlass_adapters.slurm.remote.site import Answer, Refused, Request, Site

SMALL = 256 * 1024
"""Bytes of a file that is looked into each time it is used, instead of being written for good once.

Waiting for the disk for each of a thousand small files takes longer than submitting their jobs.
"""
WRITERS = 8


def take_blobs(site: Site, blobs: List[List[Any]], stream: BinaryIO) -> None:
    """Keep the files that came with the request, by content. All of them fit into memory."""
    arrived = [(digest, stream.read(size), size) for digest, size in blobs]
    if any(len(data) != size for _, data, size in arrived):
        raise Refused("request", "the connection ended within a file")
    abreast(lambda blob: put_blob(site, *blob[:2]), arrived, WRITERS)


def put_blob(site: Site, digest: str, data: bytes) -> None:
    target = blob_path(site, digest)
    make_folder(os.path.dirname(target))
    temporary = "%s.part.%d" % (target, os.getpid())
    with open(temporary, "wb") as file:
        file.write(data)
        if len(data) > SMALL:
            file.flush()
            os.fsync(file.fileno())
    keep_blob(temporary, "sha256:" + hashlib.sha256(data).hexdigest(), digest, target)


def keep_blob(temporary: str, found: str, digest: str, target: str) -> None:
    if found != digest:
        os.unlink(temporary)
        raise Refused("digest", "%s arrived as %s" % (digest, found))
    os.chmod(temporary, 0o444)
    os.rename(temporary, target)


def blob_path(site: Site, digest: str) -> str:
    if not re.match(r"^sha256:[0-9a-f]{64}$", digest):
        raise Refused("request", "no digest: %r" % digest)
    return site.path("cas", "sha256", digest[7:9], digest[7:])


def usable(path: str, digest: str) -> bool:
    """Whether a file is there, and whole as far as one can tell; a broken one is removed."""
    try:
        if os.path.getsize(path) > SMALL or "sha256:" + file_digest(path) == digest:
            return there(path)
        os.unlink(path)
    except FileNotFoundError:
        pass
    return False


def there(path: str) -> bool:
    """Whether a file is there. Whoever asks needs it, so it stays for a while: see ``sweeping``."""
    try:
        if age_of(path) > A_DAY:
            os.utime(path, None)
        return os.path.exists(path)
    except FileNotFoundError:
        return False


def have(site: Site, request: Request, _stream: BinaryIO) -> Answer:
    """Which of some files are missing; what was uploaded beside them is checked and taken in."""
    missing = []
    for digest in request["digests"]:
        target = blob_path(site, digest)
        uploaded = request.get("uploaded", {}).get(digest)
        if uploaded is not None and not os.path.exists(target):
            if os.path.basename(uploaded) != uploaded:
                raise Refused("request", "no name of an upload: %r" % uploaded)
            path = site.path("cas", uploaded)
            make_folder(os.path.dirname(target))
            keep_blob(path, "sha256:" + file_digest(path), digest, target)
        if not there(target):
            missing.append(digest)
    return {"missing": missing}


def file_digest(path: str) -> str:
    hasher = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            hasher.update(piece)
    return hasher.hexdigest()
