"""Pieces of logs."""

import base64
import os
from typing import BinaryIO, List

from windlass_adapters.slurm.remote.files import link_of
from windlass_adapters.slurm.remote.records import order_of
from windlass_adapters.slurm.remote.site import Answer, Request, Site

LOG_PIECE = 64 * 1024


def logs(site: Site, request: Request, _stream: BinaryIO) -> Answer:
    """Pieces of logs, each from an offset of its own."""
    found = []
    for tag, token, stream, offset, before in request["logs"]:
        folder = site.folder(tag, token)
        order = order_of(folder)
        elements = ["." + str(n) for n in order["array"]] if order.get("array") else [""]
        read = base64.b64decode(before)
        found.append(log_piece(folder, elements, stream, offset, read))
    return {"logs": found}


def log_piece(
    folder: str, elements: List[str], stream: str, offset: int, before: bytes = b""
) -> Answer:
    """A piece of one log. The logs of an array's elements follow each other, in their order.

    ``before`` is what was read last, up to the offset: another text there is a log that was cut and
    has grown past that place again.
    """
    start = offset
    alone = len(elements) == 1
    over = os.path.exists(os.path.join(folder, "fetched"))
    for element in elements:
        kept = link_of(os.path.join(folder, "kept" + element))
        base = os.path.join(folder, kept) if kept else folder
        ended = over or os.path.exists(os.path.join(base, "rc" + element))
        try:
            with open(os.path.join(base, "log", stream + element), "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if alone and len(before) <= start <= size:
                    file.seek(start - len(before))
                    if file.read(len(before)) != before:
                        return {"data": "", "next": 0, "cut": True}
                if start < size:
                    file.seek(start)
                    data = file.read(LOG_PIECE)
                    return {"data": base64.b64encode(data).decode(), "next": offset + len(data)}
        except OSError:
            size = 0
        if not ended:
            if start > size and alone:
                return {"data": "", "next": 0, "cut": True}
            return {"data": "", "next": offset}
        start -= size
    if start > 0 and alone:
        return {"data": "", "next": 0, "cut": True}
    return {"data": "", "next": offset, "ended": True}
