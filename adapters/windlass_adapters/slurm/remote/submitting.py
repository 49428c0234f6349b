"""Submissions: what is known of an earlier one comes first, sbatch last."""

import base64
import hashlib
import os
from contextlib import suppress
from typing import BinaryIO, Dict, List, Optional, Tuple

from windlass_adapters.slurm.remote.blobs import take_blobs
from windlass_adapters.slurm.remote.files import age_of, listing, read, write
from windlass_adapters.slurm.remote.finding import note_id, submitted
from windlass_adapters.slurm.remote.site import PREFIX, Answer, Done, Request, Site
from windlass_adapters.slurm.remote.staging import stage

STALE_LOCK = 180.0
SBATCH_TIMEOUT = 60.0
REFUSALS = (
    "Batch job submission failed: Invalid",
    "Batch job submission failed: Job violates",
    "Batch job submission failed: Access/permission denied",
    "Batch job submission failed: Requested",
    "Batch job submission failed: Required partition not available",
    "Batch job submission failed: User's group not permitted",
    "Batch job submission failed: Pathname",
    "Batch job submission failed: Memory",
    "Unable to contact slurm controller (connect failure)",
    "Munge encode failed",
    "unrecognized option",
    "Invalid --",
    "invalid option",
    "Invalid directive",
)
"""What sbatch says when there is no job for certain."""


def submit(site: Site, request: Request, stream: BinaryIO) -> Answer:
    """Stage and submit runs. Each has its own answer; what is there already is not made again."""
    take_blobs(site, request["blobs"], stream)
    answers: Dict[str, Answer] = {}
    fresh: List[Request] = []
    for run in request["runs"]:
        folder = site.folder(run["tag"], run["token"])
        try:
            answer = stage(site, folder, run) or prepare(site, folder)
        except OSError as error:
            answer = {"storage": error.strerror or str(error), "errno": error.errno or 0}
        if answer is None:
            fresh.append(run)
        else:
            answers[run["token"]] = answer
    for group in grouped(fresh, request["max_array"]):
        for run in group:
            if run["token"] not in answers:
                send(site, request, group, answers)
                break
    return {"runs": answers}


def grouped(runs: List[Request], limit: int) -> List[List[Request]]:
    """Runs that go as one array, and the others one by one."""
    groups: Dict[str, List[Request]] = {}
    for run in runs:
        groups.setdefault(run["group"] or run["token"], []).append(run)
    size = max(1, min(limit - 1, 1000))
    return [all_[i : i + size] for all_ in groups.values() for i in range(0, len(all_), size)]


def prepare(site: Site, folder: str) -> Optional[Answer]:
    """What is known of an earlier submission; None when there was none and it is ours to make."""
    state = submitted(site, folder)
    if state == "yes":
        return {"id": (read(os.path.join(folder, "jobid")) or "").split(" ")[0]}
    if state == "unclear":
        return {"unclear": "an earlier submission has no answer yet"}
    if os.path.exists(os.path.join(folder, "cancelled")):
        return {"refused": "it was cancelled before it began"}
    lock = os.path.join(folder, "submit.lock")
    try:
        os.mkdir(lock)
    except FileExistsError:
        if age_of(lock) < STALE_LOCK:
            return {"unclear": "another submission of it is under way"}
        os.rename(lock, "%s.%d.stale" % (lock, os.getpid()))
        os.mkdir(lock)
    return None


def send(site: Site, request: Request, runs: List[Request], answers: Dict[str, Answer]) -> None:
    """One sbatch, for one run or for several of one shape."""
    folders = [site.folder(run["tag"], run["token"]) for run in runs]
    name = PREFIX + runs[0]["token"]
    argv = ["sbatch", "--parsable", *runs[0]["args"]]
    try:
        if len(runs) > 1:
            name, extra = map_of(site, runs, folders)
            argv += extra
        else:
            argv += ["--chdir=" + folders[0], "--output=" + folders[0] + "/log/slurm"]
            argv += array_of(folders[0], runs[0])
        argv += [
            "--job-name=" + name,
            "--open-mode=append",
            "--export=ALL",
            "--kill-on-invalid-dep=yes",
        ]
        argv += [site.path("bin", request["batch"])]
        argv += [folders[0]] if len(runs) == 1 else ["--map", site.path("maps", name)]
        for number, folder in enumerate(folders):
            index = str(number) if len(runs) > 1 else "-"
            write(os.path.join(folder, "submitting"), ("%s %s\n" % (name, index)).encode())
    except OSError as error:
        release(folders)
        told = {"storage": error.strerror or str(error), "errno": error.errno or 0}
        answers.update({run["token"]: told for run in runs})
        return
    done = site.run(argv, SBATCH_TIMEOUT)
    id_ = done.out.decode("ascii", "replace").strip().split("\n")[-1].split(";")[0]
    for number, (run, folder) in enumerate(zip(runs, folders)):
        if done.code == 0 and id_.isdigit():
            index = str(number) if len(runs) > 1 else ""
            note_id(folder, id_ + ("_" + index if index else ""), name, index)
            answers[run["token"]] = {"id": id_ + ("_" + index if index else "")}
        else:
            answers[run["token"]] = {"code": done.code, "error": done.err[-2000:]}
            if clearly_refused(done):
                os.unlink(os.path.join(folder, "submitting"))
    release(folders)


def clearly_refused(done: Done) -> bool:
    """Whether the controller has said no, so that there is no job for certain."""
    return done.code == 1 and any(words in done.err for words in REFUSALS)


def array_of(folder: str, run: Request) -> List[str]:
    """The elements that are still to run."""
    if not run["array"]:
        return []
    kept = {name.partition(".")[2] for name in listing(folder) if name.startswith("kept.")}
    left = [str(n) for n in run["array"] if str(n) not in kept] or [str(n) for n in run["array"]]
    limit = "%%%d" % run["limit"] if run["limit"] else ""
    return ["--array=" + ",".join(ranges(left)) + limit]


def ranges(numbers: List[str]) -> List[str]:
    """``1-3,9`` for 1, 2, 3, 9."""
    found: List[List[int]] = []
    for number in map(int, numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ["%d" % a if a == b else "%d-%d" % (a, b) for a, b in found]


def map_of(site: Site, runs: List[Request], folders: List[str]) -> Tuple[str, List[str]]:
    """Name and options of an array whose element N runs the N-th folder."""
    hashed = hashlib.sha256("\0".join(folders).encode()).digest()
    name = PREFIX + base64.b32encode(hashed).decode().lower()[:26]
    where = site.path("maps", name)
    os.makedirs(where, mode=0o700, exist_ok=True)
    write(os.path.join(where, "map"), ("\n".join(folders) + "\n").encode())
    return name, [
        "--chdir=" + where,
        "--output=" + where + "/slurm.%a",
        "--array=0-%d" % (len(runs) - 1),
    ]


def release(folders: List[str]) -> None:
    for folder in folders:
        with suppress(OSError):
            os.rmdir(os.path.join(folder, "submit.lock"))
