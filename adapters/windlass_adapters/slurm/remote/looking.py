"""One look: the queue, accounting, and the records of runs that are not simply alive."""

import os
import re
import shutil
import time
from contextlib import suppress
from typing import BinaryIO, Dict, List, NamedTuple, Optional, Tuple

from windlass_adapters.slurm.remote.files import LISTED, listing, made_at, write
from windlass_adapters.slurm.remote.records import (
    by_name,
    record_of,
    rows_of,
    rows_under,
    submission_of,
)
from windlass_adapters.slurm.remote.site import (
    LIVE,
    PREFIX,
    QUERY_TIMEOUT,
    Answer,
    Request,
    Row,
    Site,
)
from windlass_adapters.slurm.remote.sweeping import sweep

SACCT_FIELDS = "JobID,State,ExitCode,Submit,NodeList,JobName"


def look(site: Site, request: Request, _stream: BinaryIO) -> Answer:
    """The queue, and the records of runs that are not, or not only, alive in it."""
    for tag, token in request["fetched"]:
        settle(site.folder(tag, token))
    rows = site.squeue()
    named = by_name(rows)
    asked = [
        (word[: word.index("/")], word[word.index("/") + 1 :]) for word in request["runs"].split()
    ]
    if request["all"]:
        known = set(asked)
        for tag in listing(site.path("jobs")):
            tokens = [t for t in listing(site.path("jobs", tag)) if not t.startswith(".")]
            asked += [(tag, token) for token in tokens if (tag, token) not in known]
    records: Answer = {}
    odd: Dict[str, Odd] = {}
    submissions: Dict[str, List[str]] = {}
    for tag, token in asked:
        own = named.get(PREFIX + token)
        if own and len(own) == 1 and own[0].state in LIVE and own[0].element == "N/A":
            continue
        folder = site.folder(tag, token)
        name, index = submission_of(folder)
        mine = rows_under(named, name, index)
        if name != PREFIX + token:
            submissions[token] = [name, index]
            if mine and all(row.state in LIVE for row in mine):
                continue
        records[token] = record_of(folder)
        odd.update(odd_of(folder, records[token], mine))
    note_relaunches(site, odd)
    answer: Answer = {
        "rows": ["|".join(row) for row in rows],  # only the name, the last one, may hold a bar
        "records": records,
        "submissions": submissions,
        "waited": site.waited,
    }
    if request["all"]:
        places = {PREFIX + token for _, token in asked} | {name for name, _ in submissions.values()}
        answer["orphans"] = sorted(
            {row.name for row in rows if row.state in LIVE and row.name not in places}
        )[:LISTED]
    if request["accounting"]:
        answer["accounting"] = account(site, asked, records, named)
    if request.get("sweep") is not None:
        sweep(site, request["used"], request["sweep"])
    return answer


class Odd(NamedTuple):
    """A job that claimed its run and left no record, and that Slurm calls cancelled."""

    record: Answer
    element: str
    claimed: float
    """When."""


def odd_of(folder: str, record: Answer, rows: List[Row]) -> Dict[str, Odd]:
    """Such jobs of a run, by id."""
    found: Dict[str, Odd] = {}
    for row in rows:
        index = "" if submission_of(folder)[1] or row.element == "N/A" else row.element
        mine = record.get("claims", {}).get(index) == row.label and not record["cancelled"]
        if row.state == "CANCELLED" and mine and index not in record["ends"]:
            claim = os.path.join(folder, "claim" + ("." + index if index else ""))
            found[row.label] = Odd(record, index, made_at(claim))
    return found


def note_relaunches(site: Site, odd: Dict[str, Odd]) -> None:
    """When Slurm says that these began. Asked for rarely: only while there is such a job."""
    if not odd:
        return
    ids = ",".join(sorted(odd)[:LISTED])
    done = site.run(["squeue", "-a", "-h", "-t", "all", "-o", "%i|%S", "-j", ids], QUERY_TIMEOUT)
    for line in done.out.decode("utf-8", "replace").splitlines():
        id_, _, began = line.partition("|")
        if id_ in odd and re.match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d$", began):
            at = time.mktime(time.strptime(began, "%Y-%m-%dT%H:%M:%S"))
            record, index, claimed = odd[id_]
            record.setdefault("relaunched", {})[index] = at - claimed


def account(
    site: Site,
    asked: List[Tuple[str, str]],
    records: Dict[str, Answer],
    named: Dict[str, List[Row]],
) -> Optional[List[List[str]]]:
    """What accounting says of runs that the queue forgot: one question; None if it failed."""
    ids = set()
    for tag, token in asked:
        record = records.get(token)
        if record and record.get("jobid") and not rows_of(site.folder(tag, token), named):
            ids.add(record["jobid"].split(" ")[0].split("_")[0])
            ids.update(c.split("_")[0] for c in record["claims"].values() if c and c[0].isdigit())
    if not ids:
        return []
    done = site.run(
        ["sacct", "-X", "-D", "-n", "-P", "--delimiter", site.nonce, "-o", SACCT_FIELDS,
         "-j", ",".join(sorted(ids, key=hash)[:300])],
        QUERY_TIMEOUT,
        SLURM_BITSTR_LEN="0",
    )  # fmt: skip
    if done.code != 0:
        return None
    return parse_sacct(done.out.decode("utf-8", "replace"), site.nonce)


def parse_sacct(text: str, mark: str) -> List[List[str]]:
    """Lines about jobs of ours; the mark of this request parts the fields, and no name holds it."""
    found = [line.split(mark) for line in text.split("\n")]
    return [fields for fields in found if len(fields) == 6 and fields[5].startswith(PREFIX)]


def settle(folder: str) -> None:
    """Its end is with the daemon: the environment goes at once, the rest may go in time."""
    for name in ("environ.sh", "hide"):
        with suppress(OSError):
            os.unlink(os.path.join(folder, name))
    shutil.rmtree(os.path.join(folder, "packed"), ignore_errors=True)
    with suppress(OSError):
        write(os.path.join(folder, "fetched"), b"")
