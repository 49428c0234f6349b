"""Outputs of runs, with size and digest."""

import base64
import hashlib
import json
import os
import stat
from typing import BinaryIO, List

from windlass_adapters.slurm.remote.files import read
from windlass_adapters.slurm.remote.looking import LISTED
from windlass_adapters.slurm.remote.site import Answer, Request, Site


class NoOutput(Exception):
    """The path holds nothing that can be kept."""


def collect(site: Site, request: Request, _stream: BinaryIO) -> Answer:
    """Size and digest of each declared output of runs that ended well; small ones come along."""
    answers = {}
    budget = [request["inline"]]
    for tag, token in request["runs"]:
        folder = site.folder(tag, token)
        order = json.loads(read(os.path.join(folder, "order.json")) or "{}")
        found = {}
        for index in [str(n) for n in order["array"]] if order.get("array") else [""]:
            base = folder
            if index and os.path.lexists(os.path.join(folder, "kept." + index)):
                base = os.path.join(folder, os.readlink(os.path.join(folder, "kept." + index)))
            work = os.path.join(base, "work", index) if index else os.path.join(base, "work")
            for name, relative in order.get("outputs", {}).items():
                key = name + "-" + index if index else name
                try:
                    found[key] = output(work, relative, budget)
                except NoOutput as error:
                    found[key] = {"bad": "%s; %s" % (error, what_is_in(work))}
        answers[token] = found
    return {"runs": answers}


def output(work: str, relative: str, budget: List[int]) -> Answer:
    real = os.path.realpath(os.path.join(work, relative))
    inside = os.path.realpath(work)
    if real != inside and not real.startswith(inside + os.sep):
        raise NoOutput("leads out of the working directory; write a regular file there")
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise NoOutput("was not written")
    except OSError as error:
        raise NoOutput("cannot be read (%s)" % error.strerror)
    with os.fdopen(descriptor, "rb") as file:
        told = os.fstat(file.fileno())
        if not stat.S_ISREG(told.st_mode):
            raise NoOutput("is not a regular file; an output is one file")
        hasher, pieces = hashlib.sha256(), []
        inline = told.st_size <= budget[0]
        for piece in iter(lambda: file.read(1 << 20), b""):
            hasher.update(piece)
            if inline:
                pieces.append(piece)
        data = b"".join(pieces)
        if inline:
            budget[0] -= len(data)
        return {
            "path": real,
            "size": len(data) if inline else told.st_size,
            "digest": "sha256:" + hasher.hexdigest(),
            "data": base64.b64encode(data).decode() if inline else None,
        }


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
