"""Stopping runs. No job is told to stop whose name the queue did not just show to be ours."""

import os
import shutil
from contextlib import suppress
from typing import BinaryIO, Dict, List

from windlass_adapters.slurm.remote.files import age_of, listing, throw_away, write
from windlass_adapters.slurm.remote.finding import submitted
from windlass_adapters.slurm.remote.records import by_name, expand, order_of, rows_of, submission_of
from windlass_adapters.slurm.remote.site import LIVE, QUERY_TIMEOUT, Answer, Request, Row, Site


def cancel(site: Site, request: Request, _stream: BinaryIO) -> Answer:
    """Stop runs and remove their folders. ``gone`` only when the queue shows no job of theirs."""
    answers = {}
    named = by_name(site.squeue())
    gentle: Dict[str, str] = {}
    hard: Dict[str, str] = {}
    for tag, token, uid, why in request["runs"]:
        folder = site.folder(tag, token)
        order = order_of(folder)
        if order and order["uid"] != uid:
            answers[token] = "foreign"
            continue
        if order:
            tombstone(folder, order, why)
        rows = [r for r in rows_of(folder, named) if r.state in LIVE]
        if rows:
            answers[token] = "stopping"
            for row in rows:
                stop(folder, row, request["grace"] if order else 0, gentle, hard)
        elif order and submitted(site, folder) == "unclear":
            answers[token] = "unclear"
        else:
            answers[token] = "gone"
            if order and not why:
                throw_away(folder, site.path("trash"))
    # What waits first: else it would begin in the place of what is told to stop.
    send(site, [], list(hard))
    for id_ in send(site, ["--batch", "--signal=TERM"], list(gentle)):
        with suppress(OSError):  # once: a second TERM means "at once" to many programs
            write(gentle[id_], b"")
    for name in listing(site.path("trash"))[:200]:
        shutil.rmtree(site.path("trash", name), ignore_errors=True)
    return {"runs": answers}


def stop(folder: str, row: Row, grace: float, gentle: Dict[str, str], hard: Dict[str, str]) -> None:
    """Tell a running program first, and let its grace pass; anything else goes at once."""
    told = os.path.join(folder, "told." + row.id)
    target = target_of(folder, row)
    if row.state != "RUNNING" or age_of(os.path.join(folder, "cancelled")) > grace:
        hard[target] = told
    elif not os.path.exists(told):
        gentle[target] = told


def send(site: Site, flags: List[str], ids: List[str]) -> List[str]:
    """Run scancel on ids that the queue has just shown to be ours; those that it took."""
    taken: List[str] = []
    for i in range(0, len(ids), 100):
        some = ids[i : i + 100]
        if site.run(["scancel", *flags, *some], QUERY_TIMEOUT).code == 0:
            taken += some
    return taken


def target_of(folder: str, row: Row) -> str:
    """What to give to scancel: a job, an element, or elements that wait."""
    index = submission_of(folder)[1]
    if index:
        return "%s_%s" % (row.master, index)
    if row.element.isdigit():
        return "%s_%s" % (row.master, row.element)
    waiting = row.element.strip("[]").split("%")[0]
    # By the master's id, elements that run would be stopped too, without their grace.
    return "%s_[%s]" % (row.master, waiting) if expand(waiting) else row.id


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
    for tag, token, why in request["runs"]:
        folder = site.folder(tag, token)
        order = order_of(folder)
        if not order or any(r.state in LIVE for r in rows_of(folder, named)):
            found[token] = False
            continue
        tombstone(folder, order, why)
        found[token] = True
    return {"runs": found}
