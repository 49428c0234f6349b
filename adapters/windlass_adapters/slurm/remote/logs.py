"""Pieces of logs."""

import base64
import json
import os
from typing import BinaryIO, List

from windlass_adapters.slurm.remote.files import link_of, read
from windlass_adapters.slurm.remote.site import Answer, Request, Site

LOG_PIECE = 64 * 1024


def logs(site: Site, request: Request, _stream: BinaryIO) -> Answer:
    """Pieces of logs, each from an offset of its own."""
    found = []
    for tag, token, stream, offset in request["logs"]:
        folder = site.folder(tag, token)
        order = json.loads(read(os.path.join(folder, "order.json")) or "{}")
        elements = ["." + str(n) for n in order["array"]] if order.get("array") else [""]
        found.append(log_piece(folder, elements, stream, offset))
    return {"logs": found}


def log_piece(folder: str, elements: List[str], stream: str, offset: int) -> Answer:
    """A piece of one log. The logs of an array's elements follow each other, in their order."""
    start = offset
    for element in elements:
        base = os.path.join(
            folder, os.path.basename(link_of(os.path.join(folder, "kept" + element)) or "")
        )
        if os.path.lexists(os.path.join(folder, "kept" + element)):
            base = os.path.join(
                os.path.dirname(folder),
                os.path.basename(os.readlink(os.path.join(folder, "kept" + element))),
            )
        ended = os.path.exists(os.path.join(base, "rc" + element))
        try:
            with open(os.path.join(base, "log", stream + element), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if start < size:
                    file.seek(start)
                    data = file.read(LOG_PIECE)
                    return {"data": base64.b64encode(data).decode(), "next": offset + len(data)}
        except OSError:
            size = 0
        if not ended:
            if start > size and len(elements) == 1:
                return {"data": "", "next": 0, "cut": True}
            return {"data": "", "next": offset}
        start -= size
    if start > 0 and len(elements) == 1:
        return {"data": "", "next": 0, "cut": True}
    return {"data": "", "next": offset, "ended": True}
