"""Stopping runs. No job is told to stop whose name the queue did not just show to be ours."""

import json
import os
import shutil
from contextlib import suppress
from typing import BinaryIO, List

from windlass_adapters.slurm.remote.files import age_of, listing, read, write
from windlass_adapters.slurm.remote.finding import submitted
from windlass_adapters.slurm.remote.looking import throw_away
from windlass_adapters.slurm.remote.records import by_name, rows_of, submission_of
from windlass_adapters.slurm.remote.site import LIVE, QUERY_TIMEOUT, Answer, Request, Row, Site


def cancel(site: Site, request: Request, _stream: BinaryIO) -> Answer:
    """Stop runs and remove their folders. ``gone`` only when the queue shows no job of theirs."""
    answers = {}
    named = by_name(site.squeue())
    gentle: List[str] = []
    hard: List[str] = []
    for tag, token, uid, why in request["runs"]:
        folder = site.folder(tag, token)
        order = json.loads(read(os.path.join(folder, "order.json")) or "{}")
        if order and order["uid"] != uid:
            answers[token] = "foreign"
            continue
        if order:
            tombstone(folder, order, why)
        rows = [r for r in rows_of(folder, named) if r.state in LIVE]
        if rows:
            answers[token] = "stopping"
            begun = age_of(os.path.join(folder, "cancelled")) if order else request["grace"] + 1
            for row in rows:
                polite = row.state == "RUNNING" and begun <= request["grace"]
                (gentle if polite else hard).append(target_of(folder, row))
        elif order and submitted(site, folder) == "unclear":
            answers[token] = "unclear"
        else:
            answers[token] = "gone"
            if order and not why:
                throw_away(site, folder)
    for flags, ids in ((["--batch", "--signal=TERM"], gentle), ([], hard)):
        for i in range(0, len(ids), 100):
            site.run(["scancel", *flags, *sorted(set(ids))[i : i + 100]], QUERY_TIMEOUT)
    if not request["runs"]:
        return {"runs": answers}
    for name in listing(site.path("trash"))[:200]:
        shutil.rmtree(site.path("trash", name), ignore_errors=True)
    return {"runs": answers}


def target_of(folder: str, row: Row) -> str:
    """What to give to scancel: one element, or the whole job. The row is ours for certain."""
    index = submission_of(folder)[1]
    if index:
        return "%s_%s" % (row.master, index)
    return row.master if row.element.startswith("[") else (
        "%s_%s" % (row.master, row.element) if row.element.isdigit() else row.id
    )  # fmt: skip


def tombstone(folder: str, order: Request, why: str) -> None:
    """From here on no job of this run can begin: its claims are taken."""
    marker = os.path.join(folder, "cancelled")
    if not os.path.exists(marker):
        write(marker, (why or "asked").encode())
    for index in [".%d" % n for n in order["array"]] if order.get("array") else [""]:
        with suppress(FileExistsError):
            os.symlink("cancelled", os.path.join(folder, "claim" + index))


def bury(site: Site, request: Request, _stream: BinaryIO) -> Answer:
    """Runs that are lost: true for those whose claim nobody had, or whose job is known no more."""
    found = {}
    named = by_name(site.squeue())
    for tag, token in request["runs"]:
        folder = site.folder(tag, token)
        order = json.loads(read(os.path.join(folder, "order.json")) or "{}")
        if not order or any(r.state in LIVE for r in rows_of(folder, named)):
            found[token] = False
            continue
        tombstone(folder, order, "lost")
        found[token] = True
    return {"runs": found}
