"""Files by content, checked before they get their name."""

import hashlib
import os
import re
from typing import Any, BinaryIO, List

from windlass_adapters.slurm.remote.site import Answer, Refused, Request, Site


def take_blobs(site: Site, blobs: List[List[Any]], stream: BinaryIO) -> None:
    """Keep the files that came with the request, by content."""
    for digest, size in blobs:
        target = blob_path(site, digest)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        temporary = "%s.part.%d" % (target, os.getpid())
        hasher = hashlib.sha256()
        with open(temporary, "wb") as file:
            left = size
            while left:
                piece = stream.read(min(left, 1 << 20))
                if not piece:
                    raise Refused("request", "the connection ended within a file")
                hasher.update(piece)
                file.write(piece)
                left -= len(piece)
            file.flush()
            os.fsync(file.fileno())
        keep_blob(temporary, hasher.hexdigest(), digest, target)


def keep_blob(temporary: str, found: str, digest: str, target: str) -> None:
    if "sha256:" + found != digest:
        os.unlink(temporary)
        raise Refused("digest", "%s arrived as sha256:%s" % (digest, found))
    os.chmod(temporary, 0o444)
    os.rename(temporary, target)


def blob_path(site: Site, digest: str) -> str:
    if not re.match(r"^sha256:[0-9a-f]{64}$", digest):
        raise Refused("request", "no digest: %r" % digest)
    return site.path("cas", "sha256", digest[7:9], digest[7:])


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
            os.makedirs(os.path.dirname(target), exist_ok=True)
            keep_blob(path, file_digest(path), digest, target)
        if not os.path.exists(target):
            missing.append(digest)
    return {"missing": missing}


def file_digest(path: str) -> str:
    hasher = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            hasher.update(piece)
    return hasher.hexdigest()
