"""Which runs an owner has here, and whether each was really submitted."""

import json
import os
from typing import BinaryIO

from windlass_adapters.slurm.remote.files import age_of, listing, read, write
from windlass_adapters.slurm.remote.records import by_name, rows_of, submission_of
from windlass_adapters.slurm.remote.site import Answer, Refused, Request, Site

UNCERTAIN = 90.0
"""Seconds after which a submission that nobody has seen in the queue did not happen."""


def find(site: Site, request: Request, _stream: BinaryIO) -> Answer:
    """Every run of some owners, and how far each one got."""
    runs = []
    for tag in request["owners"]:
        for token in listing(site.path("jobs", tag)):
            folder = site.folder(tag, token) if token[0] != "." else ""
            order = json.loads(read(os.path.join(folder, "order.json")) or "{}") if folder else {}
            if order:
                state = submitted(site, folder)
                runs.append({"tag": tag, "token": token, "name": order["name"], "state": state,
                             "uid": order["uid"], "digest": order["digest"]})  # fmt: skip
    return {"runs": runs}


def named(site: Site, request: Request, _stream: BinaryIO) -> Answer:
    """Where the run of that name lies."""
    for tag in listing(site.path("jobs")):
        for token in listing(site.path("jobs", tag)):
            order = json.loads(read(site.path("jobs", tag, token, "order.json"), 1 << 24) or "{}")
            if order.get("name") == request["name"]:
                return {"place": [tag, token]}
    return {"place": None}


def submitted(site: Site, folder: str) -> str:
    """``yes``, ``no`` or ``unclear``: whether its job is or was there."""
    if read(os.path.join(folder, "jobid")) or os.path.lexists(os.path.join(folder, "rc")):
        return "yes"
    if any(name.startswith("claim") for name in listing(folder)):
        return "yes"
    marker = os.path.join(folder, "submitting")
    if not os.path.exists(marker):
        return "no"
    try:
        rows = rows_of(folder, by_name(site.squeue()))
    except Refused:
        return "unclear"
    if rows:
        name, index = submission_of(folder)
        note_id(folder, rows[0].master + ("_" + index if index else ""), name, index)
        return "yes"
    return "no" if age_of(marker) > UNCERTAIN else "unclear"


def note_id(folder: str, id_: str, name: str, index: str) -> None:
    write(os.path.join(folder, "jobid"), ("%s %s %s\n" % (id_, name, index or "-")).encode())
