"""A model of Slurm, as far as one account sees it: commands in, lines out, jobs that claim and end.

It stands where Slurm's commands would be called. Whether it says what the real ones say is checked
by playing the same steps on both (``test_slurm_model``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock

from windlass_adapters.slurm.remote.records import expand, order_of
from windlass_adapters.slurm.remote.site import Done
from windlass_adapters.slurm.remote.submitting import ranges

PENDING, RUNNING, COMPLETING = "PENDING", "RUNNING", "COMPLETING"
COMPLETING_FOR = 0.3
"""Seconds that it takes to clean up after a job."""
NODE = "n1"
_TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n"


@dataclass(frozen=True)
class Traits:
    """What differs from site to site. Times in seconds."""

    accounting: bool = False
    accounting_lag: float = 0.0
    start_delay: float = 0.2
    """How long each job waits."""
    min_job_age: float = 300.0
    """After which a finished job leaves the queue."""
    reuses_ids: bool = False
    """Whether an id that is free again is handed out again."""
    unclear_sbatch: int = 0
    """Every how manieth submission is made and gets no answer; 0 for none."""


SMALL = Traits()
BOUND = "JobArrayTaskLimit"
SHUT = "closed"
"""A partition that is down."""


@dataclass
class Job:
    """A job, or one element of an array."""

    id: str
    master: str
    index: str
    name: str
    folder: str
    """Its working directory, as it was submitted."""
    program: Sequence[str]
    """What follows the script's path."""
    state: str = PENDING
    reason: str = "None"
    at: float = 0.0
    """Since when it is in this state."""
    submitted: float = 0.0
    after: str = ""
    """The state that comes after COMPLETING."""
    code: int = 0
    runs: bool = False
    """Whether its program goes on."""
    taken_out: bool = False
    """Whether it waited and was cancelled by its index: then the queue shows no index of it."""
    limit: int = 0
    """How many elements of its array run at once; 0 for all."""
    node: str = ""
    cancelled_by: str = ""

    @property
    def label(self) -> str:
        return f"{self.master}_{self.index}" if self.index else self.id

    @property
    def live(self) -> bool:
        return self.state in (PENDING, RUNNING, COMPLETING)


@dataclass
class Slurm:
    """One controller with its node and its books."""

    clock: Callable[[], float]
    traits: Traits = SMALL
    jobs: list[Job] = field(default_factory=list)
    """As the queue knows them."""
    books: list[Job] = field(default_factory=list)
    """As accounting knows them; the same jobs, for ever."""
    effects: Counter[tuple[str, str]] = field(default_factory=Counter)
    """``submit``, ``start`` and ``stop``, by the folder of the run, or by name for strangers."""
    good: set[str] = field(default_factory=set)
    """Folders of runs whose program has ended well; of elements, with ``.INDEX``."""
    asked: Counter[str] = field(default_factory=Counter)
    """Commands, by name."""
    _ids: int = 0
    _lock: RLock = field(default_factory=RLock)
    """Several commands may be called at once."""

    # ---- commands

    def run(self, argv: Sequence[str]) -> Done:
        """One of Slurm's commands."""
        with self._lock:
            self.pass_time()
            self.asked[argv[0]] += 1
            command: Callable[[Sequence[str]], Done] = getattr(self, f"_{argv[0]}")
            done = command(argv[1:])
            self.pass_time()
            return done

    def _sbatch(self, argv: Sequence[str]) -> Done:
        options, rest = _options(argv)
        indices = expand(options["array"]) if "array" in options else [""]
        limit = int(options.get("array", "").partition("%")[2] or 0)
        master = self._new_id()
        for number, index in enumerate(indices):
            id_ = master if number == len(indices) - 1 else self._new_id()
            job = Job(id_, master, index, options["job-name"], options["chdir"], rest[1:])
            job.reason = "PartitionDown" if options.get("partition") == SHUT else "None"
            job.at = job.submitted = self.clock()
            job.limit = limit
            self.jobs.append(job)
            if self.traits.accounting:
                self.books.append(job)
            self.effects["submit", self.run_of(job)] += 1
        every = self.traits.unclear_sbatch
        if every and self.asked["sbatch"] % every == 0:
            return Done(1, b"", _TIMED_OUT)
        return Done(0, f"{master}\n".encode(), "")

    def _squeue(self, argv: Sequence[str]) -> Done:
        form = argv[argv.index("-o") + 1]
        lines = [
            form.replace("%A", a).replace("%F", job.master).replace("%K", k)
            .replace("%T", job.state).replace("%r", job.reason)
            .replace("%N", job.node)
            .replace("%Z", job.folder).replace("%j", job.name)
            for job, a, k in self._lines()
        ]  # fmt: skip
        return Done(0, "".join(f"{line}\n" for line in lines).encode(), "")

    def _lines(self) -> Iterator[tuple[Job, str, str]]:
        """A job, its id and its index: elements that never had a node share one line."""
        together: dict[tuple[str, str], list[Job]] = {}
        for job in self.jobs:
            if job.index and not job.node:
                together.setdefault((job.master, job.state), []).append(job)
            else:
                yield job, job.id, job.index or "N/A"
        for (master, _), jobs in together.items():
            bound = f"%{jobs[0].limit}" if jobs[0].limit else ""
            listed = ",".join(ranges([job.index for job in jobs])) + bound
            yield jobs[0], master, "N/A" if jobs[0].taken_out else listed

    def _sacct(self, argv: Sequence[str]) -> Done:
        mark, ids = argv[argv.index("--delimiter") + 1], argv[argv.index("-j") + 1].split(",")
        told = []
        for job in self.books:
            known = self.clock() - job.at >= self.traits.accounting_lag
            if job.master in ids and known:
                state = f"CANCELLED by {job.cancelled_by}" if job.cancelled_by else job.state
                state = RUNNING if state == COMPLETING else state
                node = job.node or "None assigned"
                row = (job.label, state, f"{job.code}:0", _stamp(job.submitted), node, job.name)
                told.append(mark.join(row) + "\n")
        return Done(0, "".join(told).encode(), "")

    def _scancel(self, argv: Sequence[str]) -> Done:
        gentle = "--signal=TERM" in argv
        for word in (w for w in argv if not w.startswith("-")):
            for job in [j for j in self.jobs if _meant(j, word)]:
                job.taken_out = "_" in word and job.state == PENDING
                self._stop(job, gentle)
        return Done(0, b"", "")

    def _stop(self, job: Job, gentle: bool) -> None:
        if job.state == PENDING and not gentle:
            self.effects["stop", self.run_of(job)] += 1
            self._to(job, "CANCELLED")
            job.cancelled_by = "1000"
        elif job.state == RUNNING:
            self.effects["stop", self.run_of(job)] += 1
            self._end(job, 143, "term")
            if not gentle:
                job.after, job.cancelled_by, job.reason = "CANCELLED", "1000", "None"

    def _scontrol(self, argv: Sequence[str]) -> Done:
        assert list(argv) == ["show", "config"], argv
        kind = "accounting_storage/" + ("slurmdbd" if self.traits.accounting else "none")
        text = f"SLURM_VERSION = 22.05.8\nMaxArraySize = 1001\nAccountingStorageType = {kind}\n"
        return Done(0, text.encode(), "")

    # ---- time

    def pass_time(self) -> None:
        """Start what may start, clean up, and forget."""
        now = self.clock()
        for job in self.jobs:
            may = job.state == PENDING and job.reason in ("None", BOUND)
            if may and now - job.at >= self.traits.start_delay:
                beside = [j for j in self.jobs if j.master == job.master and j.node and j.live]
                if job.limit and len(beside) >= job.limit:
                    job.reason = BOUND
                else:
                    job.reason = "None"
                    self._start(job)
            if job.state == COMPLETING and now - job.at >= COMPLETING_FOR:
                self._to(job, job.after)
        age = self.traits.min_job_age
        self.jobs = [job for job in self.jobs if job.live or now - job.at < age]

    def _to(self, job: Job, state: str) -> None:
        job.state, job.at = state, self.clock()

    # ---- what the script of every job does, see batch.sh

    def _start(self, job: Job) -> None:
        self._to(job, RUNNING)
        job.node = NODE
        folder = Path(self.run_of(job))
        if not (folder / "words").exists():
            return self._ran_nothing(job, 97)
        if (folder / "cancelled").exists():
            return self._ran_nothing(job, 98, folder)
        claim = folder / f"claim{_suffix(job)}"
        with suppress(FileExistsError):
            claim.symlink_to(job.label)
        if str(claim.readlink()) != job.label:
            return self._ran_nothing(job, 96, folder)
        job.runs = True
        self.effects["start", str(folder)] += 1
        return None

    def _ran_nothing(self, job: Job, code: int, folder: Path | None = None) -> None:
        if folder is not None:
            with (folder / f"note{_suffix(job)}").open("a") as file:
                file.write(f"{code} {job.label}\n")
        self._ended(job, code)

    def _ended(self, job: Job, code: int) -> None:
        job.runs, job.code = False, code
        self._to(job, COMPLETING)
        job.after = "FAILED" if code else "COMPLETED"
        job.reason = "NonZeroExitCode" if code else "None"

    def _end(self, job: Job, code: int, heard: str = "") -> None:
        folder = Path(self.run_of(job))
        (folder / f"rc{_suffix(job)}").write_text(f"{code} {job.label} 0 {heard}\n")
        self._ended(job, code)

    # ---- the test's hand

    def going(self) -> list[Job]:
        """Jobs whose program goes on."""
        with self._lock:
            self.pass_time()
            return [job for job in self.jobs if job.runs]

    def finish(self, job: Job, code: int, outputs: Mapping[str, bytes], stderr: str = "") -> None:
        """Let a program write its outputs and end."""
        folder = Path(self.run_of(job))
        for name, content in outputs.items():
            work = folder / "work" / (job.index if _suffix(job) else "")
            target = work / order_of(str(folder))["outputs"][name]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        (folder / "log" / f"stderr{_suffix(job)}").write_text(stderr)
        self._end(job, code)
        if code == 0:
            self.good.add(f"{folder}{_suffix(job)}")

    def stranger(self, name: str, folder: str) -> Job:
        """A held job of the same account that somebody else has submitted."""
        job = Job(self._new_id(), "", "", name, folder, ("sleep",), reason="JobHeldUser")
        job.master, job.at = job.id, self.clock()
        self.jobs.append(job)
        return job

    def run_of(self, job: Job) -> str:
        """The folder of the run that a job is for; of a stranger's, its name."""
        if job.program and job.program[0] == "--map":
            return (Path(job.program[1]) / "map").read_text().splitlines()[int(job.index)]
        return job.program[0] if job.program[0].startswith("/") else job.name

    def _new_id(self) -> str:
        self._ids += 1
        if not self.traits.reuses_ids:
            return str(self._ids)
        held = {int(each) for job in self.jobs for each in (job.id, job.master) if each}
        return str(next(n for n in range(1, len(held) + 2) if n not in held))


def _options(argv: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    options = [word for word in argv if word.startswith("--") and word != "--map"]
    found = dict(word[2:].partition("=")[::2] for word in options)
    return found, [word for word in argv if word not in options]


def _meant(job: Job, word: str) -> bool:
    """Whether scancel means this job by ``7``, ``7_3`` or ``7_[0-3]``."""
    master, _, elements = word.partition("_")
    if not elements:
        return word == job.id or (word == job.master and bool(job.index))
    return job.master == master and job.index in expand(elements)


def _suffix(job: Job) -> str:
    """Of the names of an element's files; one of several runs in one array has none."""
    return f".{job.index}" if job.index and job.program[0] != "--map" else ""


def _stamp(at: float) -> str:
    return f"2030-01-01T{int(at) % 86400:05}"
