"""Submissions: what is known of an earlier one comes first, sbatch last."""

import base64
import hashlib
import os
from contextlib import suppress
from threading import BoundedSemaphore
from typing import BinaryIO, Callable, Dict, List, Optional, Tuple

from windlass_adapters.slurm.remote.abreast import abreast
from windlass_adapters.slurm.remote.blobs import take_blobs
from windlass_adapters.slurm.remote.files import age_of, listing, read, write
from windlass_adapters.slurm.remote.finding import note_id, submitted
from windlass_adapters.slurm.remote.site import PREFIX, Answer, Done, Refused, Request, Site
from windlass_adapters.slurm.remote.staging import stage

STALE_LOCK = 180.0
STAGERS = 8
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
AWAY = ("Unable to contact slurm controller", "Munge encode failed", "Socket timed out")
"""What it says, after long, when no controller answers: asking again at once would take as long."""


def submit(site: Site, request: Request, stream: BinaryIO) -> Answer:
    """Stage and submit runs. Each has its own answer; what is there already is not made again."""
    take_blobs(site, request["blobs"], stream)
    answers: Dict[str, Answer] = {}
    sending = Sending(request)

    def serve(group: List[Request]) -> None:
        ready = abreast(lambda run: make_ready(site, run), group, STAGERS)
        answers.update((run["token"], said) for run, said in zip(group, ready) if said is not None)
        fresh = [run for run, said in zip(group, ready) if said is None]
        if fresh:
            with sending.turn:
                answers.update(send(site, sending, fresh))

    # Side by side: while one run waits for the controller, the next one's files are laid out.
    abreast(serve, grouped(request["runs"], request["max_array"]), STAGERS)
    return {"runs": answers}


class Sending:
    """What the submissions of one request share."""

    def __init__(self, request: Request) -> None:
        self.batch: str = request["batch"]
        self.turn = BoundedSemaphore(request["abreast"])
        self.away = ""
        """What sbatch said when it found no controller: then nobody else need wait for it."""


def make_ready(site: Site, run: Request) -> Optional[Answer]:
    """Lay a run out; its answer, or None when it is now ours to submit."""
    return or_storage(stage, site, run) or or_storage(prepare, site, run)


def or_storage(
    step: Callable[[Site, str, Request], Optional[Answer]], site: Site, run: Request
) -> Optional[Answer]:
    """What a step says of a run, or of the disk."""
    try:
        return step(site, site.folder(run["tag"], run["token"]), run)
    except OSError as error:
        return storage(error)


def grouped(runs: List[Request], limit: int) -> List[List[Request]]:
    """Runs that go as one array, and the others one by one."""
    groups: Dict[str, List[Request]] = {}
    for run in runs:
        groups.setdefault(run["group"] or run["token"], []).append(run)
    size = max(1, min(limit - 1, 1000))
    return [all_[i : i + size] for all_ in groups.values() for i in range(0, len(all_), size)]


def prepare(site: Site, folder: str, _run: Request) -> Optional[Answer]:
    """What is known of an earlier submission; None when there was none and it is ours to make."""
    state = submitted(site, folder)
    if state == "yes":
        return {"id": (read(os.path.join(folder, "jobid")) or "").split(" ")[0]}
    if state == "unclear":
        return {"unclear": "an earlier submission has no answer yet"}
    if os.path.exists(os.path.join(folder, "cancelled")):
        return {"refused": "it was cancelled before it began"}
    lock = os.path.join(folder, "submit.lock")
    whose = "%s.%d" % (os.uname()[1], os.getpid())
    try:
        os.symlink(whose, lock)  # one step, on NFS too; a folder costs far more to remove
    except FileExistsError:
        if age_of(lock) < STALE_LOCK:
            return {"unclear": "another submission of it is under way"}
        os.rename(lock, "%s.%s.stale" % (lock, whose))
        os.symlink(whose, lock)
    return None


def send(site: Site, sending: Sending, runs: List[Request]) -> Dict[str, Answer]:
    """One sbatch, for one run or for several of one shape; what came of it."""
    folders = [site.folder(run["tag"], run["token"]) for run in runs]
    indices = [str(number) for number in range(len(runs))] if len(runs) > 1 else [""]
    markers = [os.path.join(folder, "submitting") for folder in folders]
    if sending.away:
        release(folders)
        return {run["token"]: {"code": 1, "error": sending.away} for run in runs}
    try:
        name, argv = command_of(site, sending.batch, runs, folders)
        for marker, index in zip(markers, indices):
            write(marker, ("%s %s\n" % (name, index or "-")).encode())
    except OSError as error:
        told = storage(error)
        release(folders)
        return {run["token"]: told for run in runs}
    try:
        done = site.run(argv, SBATCH_TIMEOUT)
    except Refused:  # it never ran
        remove(markers)
        release(folders)
        raise
    id_ = done.out.decode("ascii", "replace").strip().split("\n")[-1].split(";")[0]
    if done.code == 0 and id_.isdigit():
        ids = [id_ + ("_" + index if index else "") for index in indices]
        answers = [noted(*each, name) for each in zip(folders, ids, indices)]
    else:
        answers = [{"code": done.code, "error": done.err[-2000:]} for _ in runs]
        if clearly_refused(done):
            remove(markers)
        if done.code is None or any(words in done.err for words in AWAY):
            sending.away = AWAY[0] + ": an earlier sbatch of this command did not find it"
    release(folders)
    return {run["token"]: answer for run, answer in zip(runs, answers)}


def command_of(
    site: Site, batch: str, runs: List[Request], folders: List[str]
) -> Tuple[str, List[str]]:
    """Name of the job, and sbatch with all that it is told."""
    name = PREFIX + runs[0]["token"]
    argv = ["sbatch", "--parsable", *runs[0]["args"]]
    if len(runs) > 1:
        name, extra = map_of(site, runs, folders)
        argv += extra
    else:
        argv += ["--chdir=" + folders[0], "--output=" + folders[0] + "/log/slurm"]
        argv += array_of(folders[0], runs[0])
    argv += ["--job-name=" + name, "--open-mode=append", "--export=ALL"]
    argv += ["--kill-on-invalid-dep=yes", site.path("bin", batch)]
    return name, argv + ([folders[0]] if len(runs) == 1 else ["--map", site.path("maps", name)])


def noted(folder: str, id_: str, index: str, name: str) -> Answer:
    """Write down under which id it was submitted. If that fails, its name will show it."""
    try:
        note_id(folder, id_, name, index)
    except OSError as error:
        return storage(error)
    return {"id": id_}


def storage(error: OSError) -> Answer:
    """A disk that cannot be written is an answer too."""
    return {"storage": error.strerror or str(error), "errno": error.errno or 0}


def remove(markers: List[str]) -> None:
    for marker in markers:
        with suppress(OSError):
            os.unlink(marker)


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
            os.unlink(os.path.join(folder, "submit.lock"))
