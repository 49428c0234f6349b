"""What a look says about a run: hop 5, pure. Every state that Slurm has is in this file.

A run has ended well when Slurm says COMPLETED **and** its own record says 0. One that is not in the
queue is not over for that: it is looked for in accounting and in its own records, and only after
long is it lost.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from windlass_adapters.slurm.snapshot import Account, Record, Row, expand
from windlass_schemas import Reason

RECORD_PATIENCE = 120.0
"""Seconds that a run's record or its line in accounting may come later than its end."""
REQUEUE_PATIENCE = 120.0
"""Seconds in which a preempted job that may be put back comes back."""
RELAUNCH_SLACK = 3.0
"""Seconds by which the clocks of a controller and of a disk may differ."""
_TAIL_LINES = 12

WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "CONFIGURING", "POWER_UP_NODE"})
RUNNING = frozenset({"RUNNING", "RESIZING", "SIGNALING", "UPDATE_DB", "EXPEDITING"})
FINISHING = frozenset({"COMPLETING", "STAGE_OUT"})
HELD = frozenset({"REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT", "SUSPENDED", "STOPPED"})
LIVE = WAITING | RUNNING | FINISHING | HELD
NODE = frozenset({"NODE_FAIL", "BOOT_FAIL", "LAUNCH_FAILED", "RECONFIG_FAIL"})
TIME = frozenset({"TIMEOUT", "DEADLINE"})
ENDED = NODE | TIME | {"COMPLETED", "FAILED", "CANCELLED", "OUT_OF_MEMORY", "PREEMPTED"}

HOLDS = ("JobHeld", "launch failed requeued held", "JobHoldMaxRequeue")
"""Reasons for which a job waits until a person does something."""
NEVER = frozenset(
    {
        *("BadConstraints", "DependencyNeverSatisfied", "InvalidAccount", "InvalidQOS"),
        *("AccountNotAllowed", "QOSNotAllowed", "PartitionNodeLimit", "PartitionTimeLimit"),
        *(
            "AccountingPolicy",
            "QOSMaxCpuPerJobLimit",
            "QOSMaxMemoryPerJob",
            "QOSMaxNodePerJobLimit",
        ),
        *("QOSMaxWallDurationPerJobLimit", "AssocMaxCpuPerJobLimit", "AssocMaxNodePerJobLimit"),
        *("AssocMaxWallDurationPerJobLimit", "MaxCpuPerJob", "MaxMemPerLimit"),
    }
)
"""Reasons for which a job would wait for ever."""
RESERVED: Mapping[str, str] = {
    "94": "its image could not be pulled",
    "95": "the compute node has no program that runs containers; bring one by spec.params.setup of"
    " the Target (module load apptainer), then windlass sync this Job",
    "96": "another job has this run",
    "97": "its folder is not to be seen on the compute node; is remoteRoot on a shared disk?",
    "98": "it was cancelled before it began",
    "99": "Slurm began it twice: its controller had forgotten the first time",
}
NO_NODE = ("", "None assigned")
"""What Slurm says of the nodes of a job that never had any."""
UNSCHEDULABLE, LOST = "unschedulable", "lost"
"""What the marker of a cancelled run says, when nobody asked for it."""


class Kind(Enum):
    """What can be said of a run."""

    ALIVE = "alive"
    HOPELESS = "hopeless"
    """Waits, and always would."""
    GONE = "gone"
    """Neither in the queue nor is there a folder."""
    LOST = "lost"
    """Not in the queue for too long, without a result."""
    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True)
class Verdict:
    """How a run stands."""

    kind: Kind
    message: str = ""
    reason: Reason | None = None
    counts: bool = True
    """Whether its failure is the program's, and so uses up one of its attempts."""
    exit_code: int | None = None
    job: str = ""
    """Slurm's id of the job."""


@dataclass(frozen=True)
class Evidence:
    """All that is known of a run, or of one element of it."""

    rows: Sequence[Row] = ()
    record: Record | None = None
    """None when the queue alone says enough."""
    accounts: Sequence[Account] | None = ()
    """None when accounting did not answer."""
    has_accounting: bool = False
    unseen_for: float = 0.0
    """Seconds for which it is not alive in the queue."""
    lost_after: float = 300.0
    index: str = ""


def judge(evidence: Evidence) -> Verdict:
    """How a run stands, with all its elements."""
    record = evidence.record
    if record is None or record.order is None or record.order.array is None:
        return _judge_one(evidence)
    accounts = evidence.accounts
    found: dict[str, Verdict] = {}
    rows_by_index: dict[str, list[Row]] = {}
    # Of elements that were cancelled by their index while they waited, the queue shows no index.
    unlisted = [row for row in evidence.rows if not expand(row.element)]
    for row in evidence.rows:
        for index in expand(row.element):
            rows_by_index.setdefault(index, []).append(row)
    for number in record.order.array:
        index = str(number)
        own = None if accounts is None else [a for a in accounts if a.id.endswith(f"_{index}")]
        rows = rows_by_index.get(index, unlisted)
        found[index] = _judge_one(replace(evidence, rows=rows, accounts=own, index=index))
    return _sum(found, record)


def _sum(found: Mapping[str, Verdict], record: Record) -> Verdict:
    """The verdict on an array."""
    kinds = Counter(verdict.kind for verdict in found.values())
    for kind in (Kind.HOPELESS, Kind.ALIVE, Kind.LOST, Kind.GONE):
        if kinds[kind]:
            first = next(v for v in found.values() if v.kind is kind)
            over = kinds[Kind.GOOD] + kinds[Kind.BAD]
            said = f"{over} of {len(found)} elements have ended; {first.message}"
            return replace(first, message=said)
    if not kinds[Kind.BAD]:
        return Verdict(Kind.GOOD, job=record.jobid.partition(" ")[0])
    bad = {index: v for index, v in found.items() if v.kind is Kind.BAD}
    index, first = next(((i, v) for i, v in bad.items() if v.counts), next(iter(bad.items())))
    listed = ", ".join([*bad][:20]) + (" ..." if len(bad) > 20 else "")
    said = (
        f"{len(bad)} of {len(found)} elements failed ({listed}); element {index}: {first.message}"
    )
    return replace(first, message=said)


def _judge_one(evidence: Evidence) -> Verdict:
    record = evidence.record
    claim = record.claims.get(evidence.index) if record else None
    if (end := record.ends.get(evidence.index) if record else None) and end[1:2] == ["kept"]:
        return Verdict(Kind.GOOD, "ended well in an earlier attempt", exit_code=0)
    row = _winner(evidence.rows, claim)
    if row is not None and row.state in LIVE:
        return _alive(row, record)
    if row is not None and row.state not in ENDED:
        return Verdict(Kind.ALIVE, f"job {row.label}: Slurm says {row.state}", job=row.label)
    if record is None:
        return Verdict(Kind.ALIVE, "is looked at next")
    if record.missing:
        return Verdict(Kind.GONE, "no job of it may run any more, and there is no folder of it")
    account = _newest(evidence.accounts or (), claim)
    state = row.state if row is not None else account.state.partition(" ")[0] if account else ""
    job = row.label if row is not None else account.id if account else claim or ""
    if row is None and state in LIVE:
        state = ""  # accounting is behind: the queue knows better
    if not state:
        return _forgotten(evidence, record, claim)
    by = account.state if account else ""
    said = row.reason if row is not None else by
    if state == "CANCELLED" and record.cancelled is None:
        nodes = row.nodes if row is not None else account.nodes if account else ""
        if (stillborn := _stillborn(evidence, record, said, nodes)) is not None:
            return replace(stillborn, job=job)
    return replace(_ended(evidence, record, state, said), job=job)


def _winner(rows: Sequence[Row], claim: str | None) -> Row | None:
    """Which of a run's jobs counts: the one that has the claim, then any that may yet run."""
    for row in rows:
        if claim is not None and row.label == claim:
            return row
    live = [row for row in rows if row.state in LIVE]
    if live:
        return live[0]
    return rows[-1] if rows and claim is None else None


def _newest(accounts: Sequence[Account], claim: str | None) -> Account | None:
    own = [a for a in accounts if claim is None or a.id == claim]
    return max(own, key=lambda a: a.submitted, default=None)


def _alive(row: Row, record: Record | None) -> Verdict:
    job = f"job {row.label}"
    if record is not None and record.cancelled:
        return Verdict(Kind.ALIVE, f"{job} is being stopped", job=row.label)
    if row.state in HELD or (row.state in WAITING and row.reason.startswith(HOLDS)):
        said = (
            f"{job} is held ({row.state}, {row.reason}); scontrol release or resume lets it go on"
        )
        return Verdict(Kind.ALIVE, said, Reason.HELD, job=row.label)
    if row.state in WAITING:
        if row.reason in NEVER:
            said = f"{job} can never start: {row.reason}; mend spec.options or ask the site"
            return Verdict(Kind.HOPELESS, said, Reason.UNSCHEDULABLE, job=row.label)
        why = "" if row.reason == "None" else f" ({row.reason})"
        return Verdict(Kind.ALIVE, f"{job} waits in the queue{why}", job=row.label)
    if row.state in FINISHING:
        return Verdict(Kind.ALIVE, f"{job} is finishing", job=row.label)
    return Verdict(Kind.ALIVE, f"{job} runs on {row.nodes}", job=row.label)


def _stillborn(evidence: Evidence, record: Record, said: str, nodes: str) -> Verdict | None:
    """A job that Slurm says was cancelled, and that its node could not start; None for any other.

    Slurm cancels a job that it may not queue again when its node fails to start it: a prolog that
    fails, or a controller that has lost its last seconds and starts a job that is there already.
    A person's cancel leaves other traces: no node while it waited, and a claim and a record of its
    end once it ran.
    """
    index = evidence.index
    by_person = said.startswith("CANCELLED by") and said != "CANCELLED by 0"
    if by_person or nodes in NO_NODE or index in record.ends or index in record.notes:
        return None
    if index not in record.claims:
        why = f"its machine ({nodes}) could not start it, and so Slurm cancelled it"
        return Verdict(Kind.LOST, why)
    lag = record.relaunched.get(index, 0.0)
    if lag <= RELAUNCH_SLACK or (record.order is not None and record.order.requeue):
        return None
    why = "the controller forgot that it had begun, began it again and gave up"
    if evidence.unseen_for < RECORD_PATIENCE:  # what had begun is being killed
        return Verdict(Kind.ALIVE, f"{why}; waiting for its record")
    return Verdict(Kind.LOST, why)


def _forgotten(evidence: Evidence, record: Record, claim: str | None) -> Verdict:
    """The queue does not know it, nor does accounting: its own record may."""
    if record.cancelled is not None:
        return _cancelled(record)
    end = record.ends.get(evidence.index)
    if end and (not evidence.has_accounting or evidence.unseen_for > RECORD_PATIENCE):
        if end[0] != "0" and end[3:] in (["term"], ["time"]):
            return replace(_stopped(end[3]), job=claim or "")
        state = "COMPLETED" if end[0] == "0" else "FAILED"
        verdict = _ended(evidence, record, state, "the queue has forgotten it")
        return replace(verdict, job=claim or "")
    if evidence.unseen_for > evidence.lost_after and not end:
        said = f"job {claim or record.jobid.partition(' ')[0] or '?'} is not in the queue any more"
        return Verdict(Kind.LOST, f"{said} and left no result")
    where = "accounting" if evidence.has_accounting else "its record"
    return Verdict(Kind.ALIVE, f"it left the queue; waiting for {where}", job=claim or "")


def _stopped(heard: str) -> Verdict:
    """It was told to stop, and nobody knows any more by whom."""
    if heard == "time":
        message = "ran longer than it may; raise timeLimit or make the program faster"
        return Verdict(Kind.BAD, message, Reason.TIME_LIMIT_EXCEEDED)
    message = "Slurm stopped it (preempted, drained or cancelled: the queue has forgotten which)"
    return Verdict(Kind.BAD, message, Reason.INTERRUPTED, counts=False)


def _cancelled(record: Record) -> Verdict:
    why, _, said = (record.cancelled or "").partition(":")
    if why == UNSCHEDULABLE:
        message = f"{said.strip()}; it was taken out of the queue"
        return Verdict(Kind.BAD, message, Reason.UNSCHEDULABLE)
    if why == LOST:
        unknown = "the queue forgot it and it left no result; nothing is known of how it ended"
        return Verdict(Kind.BAD, said.strip() or unknown, Reason.RUN_LOST, counts=False)
    return Verdict(Kind.ALIVE, "was stopped; its folder is being removed")


def _ended(evidence: Evidence, record: Record, state: str, said: str) -> Verdict:
    end = record.ends.get(evidence.index)
    code = int(end[0]) if end and end[0].isdigit() else None
    if state == "COMPLETED" and code == 0:
        return Verdict(Kind.GOOD, exit_code=0)
    if state == "CANCELLED":
        if record.cancelled is not None:
            return _cancelled(record)
        by = f" ({said})" if said.startswith("CANCELLED by") else ""
        message = f"somebody cancelled it in Slurm{by}; windlass sync runs it again"
        return Verdict(Kind.BAD, message, Reason.CANCELLED)
    if state == "OUT_OF_MEMORY":
        message = f"it used more memory than it asked for; raise options.mem{_tail(record)}"
        return Verdict(Kind.BAD, message, Reason.OUT_OF_MEMORY, exit_code=code)
    if state in TIME:
        message = f"ran longer than it may ({state}); raise timeLimit or make the program faster"
        return Verdict(Kind.BAD, message, Reason.TIME_LIMIT_EXCEEDED, exit_code=code)
    if state in NODE:
        return Verdict(Kind.BAD, f"its machine failed ({state})", Reason.NODE_FAILED, counts=False)
    if state == "PREEMPTED":
        if record.order and record.order.requeue and evidence.unseen_for < REQUEUE_PATIENCE:
            return Verdict(Kind.ALIVE, "was preempted; waiting for it to be queued again")
        message = "the scheduler took its machine away (PREEMPTED)"
        return Verdict(Kind.BAD, message, Reason.PREEMPTED, counts=False)
    return _failed(evidence, record, state, said, code)


def _failed(evidence: Evidence, record: Record, state: str, said: str, code: int | None) -> Verdict:
    """FAILED, or COMPLETED without the program's own word for it."""
    notes = [note[0] for note in record.notes.get(evidence.index, []) if note]
    if notes[-1:] == ["99"]:
        if code is None and evidence.unseen_for < RECORD_PATIENCE:
            return Verdict(Kind.ALIVE, f"{RESERVED['99']}; waiting for its record")
        return Verdict(Kind.BAD, RESERVED["99"], Reason.NODE_FAILED, counts=False)
    if code is not None and code != 0:
        message = f"{_exit_words(code)}{_tail(record)}"
        return Verdict(Kind.BAD, message, Reason.FAILED, exit_code=code)
    if code == 0:
        message = f"the program ended with 0, but Slurm says {state} ({said})"
        return Verdict(Kind.BAD, message, Reason.FAILED, exit_code=0)
    if evidence.unseen_for < RECORD_PATIENCE and state == "COMPLETED":
        return Verdict(Kind.ALIVE, "Slurm says COMPLETED; waiting for its record")
    why = RESERVED.get(notes[-1] if notes else "", f"it did not start ({state}, {said})")
    if state == "COMPLETED":
        message = "Slurm says COMPLETED, but it left no result; nothing is known of how it ended"
        return Verdict(Kind.BAD, message, Reason.RUN_LOST, counts=False)
    if notes[-1:] in (["94"], ["95"]):
        return Verdict(Kind.BAD, f"{why}{_tail(record)}", Reason.FAILED, counts=notes[-1] == "94")
    return Verdict(Kind.BAD, f"{why}{_tail(record)}", Reason.NODE_FAILED, counts=False)


def _exit_words(code: int) -> str:
    try:
        return f"killed by {signal.Signals(code - 128).name} (exit code {code})"
    except ValueError:
        return f"exit code {code}"


def _tail(record: Record) -> str:
    lines = [line for line in record.tail.splitlines() if line.strip()][-_TAIL_LINES:]
    return "; stderr ends:\n" + "\n".join(lines) if lines else "; it wrote nothing to stderr"
