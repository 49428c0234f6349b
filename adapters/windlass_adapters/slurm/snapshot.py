"""One look at a cluster, as values: hop 5. Pure, and wary of what it reads.

The queue's lines, accounting's lines and the runs' own records come in one answer. A line that
cannot be read is left out; an answer that cannot be read is no answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from windlass_adapters.base import TransientError
from windlass_adapters.slurm.naming import Place

_MOST_INDICES = 200_000
_TEXT = frozenset({str})


class Row(NamedTuple):
    """One line of the queue."""

    id: str
    master: str
    """The array's id, or the job's own."""
    element: str
    """``3``, ``[4-9%2]`` for elements that wait, or ``N/A``."""
    state: str
    reason: str
    nodes: str
    name: str

    @property
    def label(self) -> str:
        """The id as Slurm's own commands take it, and as a claim holds it."""
        return f"{self.master}_{self.element}" if self.element.isdigit() else self.id


class Account(NamedTuple):
    """One line of accounting."""

    id: str
    """``12`` or ``12_3``."""
    state: str
    exit_code: str
    submitted: str
    nodes: str
    name: str


class Order(BaseModel):
    """What a run's folder says of the run."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    uid: str
    digest: str
    array: tuple[int, ...] | None = None
    outputs: dict[str, str] = {}
    requeue: bool | None = None


class Record(BaseModel):
    """What a run wrote down itself. By element; the index of a run that is no array is empty."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    missing: bool = False
    """There is no such folder."""
    order: Order | None = None
    jobid: str = ""
    submitting: float | None = None
    """Seconds since it was given to sbatch."""
    cancelled: str | None = None
    """Why it may not run any more."""
    claims: dict[str, str | None] = {}
    ends: dict[str, list[str]] = {}
    """(exit code, job id, restarts, what it heard of its end) of programs that have ended."""
    notes: dict[str, list[list[str]]] = {}
    """(reserved exit, job id) of jobs that ran nothing."""
    relaunched: dict[str, float] = {}
    """Seconds from the claim of a cancelled job to what Slurm says was its start."""
    tail: str = ""
    """The end of what a failed program printed."""


@dataclass(frozen=True)
class Look:
    """Everything that one look showed."""

    taken: float
    """When it began, on the monotonic clock."""
    rows: Mapping[str, Sequence[Row]]
    """By name of the job."""
    records: Mapping[str, Record]
    """By token, of runs that are not simply alive."""
    submissions: Mapping[str, tuple[str, str]]
    """Name and index of the array that a run went into, by token."""
    accounting: Mapping[str, Sequence[Account]] | None
    """By name of the job; None when there is none or it did not answer."""
    waited: float = 0.0
    """Seconds that the controller took to answer."""
    covered: frozenset[Place] = field(default_factory=frozenset)
    """Runs that were asked for."""
    has_accounting: bool = False
    orphans: tuple[str, ...] = ()
    """Names of live jobs that look like ours and have no folder."""
    whole: bool = False
    """Whether every run below the root was looked at."""
    lines: Sequence[JsonValue] = ()
    """What ``rows`` was read from."""
    known: Mapping[str, Row] = field(default_factory=dict)
    """The same, by the line: most of the next look's lines are the same again."""

    def covers(self, places: Collection[Place]) -> bool:
        """Whether it shows each of these runs."""
        return self.whole or self.covered.issuperset(places)

    def rows_of(self, token: str, job_name: str) -> Sequence[Row]:
        """The queue's lines about one run."""
        name, index = self.submissions.get(token, (job_name, ""))
        found = self.rows.get(name, ())
        return [r for r in found if index in expand(r.element)] if index else found

    def accounts_of(self, token: str, job_name: str) -> Sequence[Account] | None:
        """Accounting's lines about one run."""
        if self.accounting is None:
            return None
        name, index = self.submissions.get(token, (job_name, ""))
        found = self.accounting.get(name, ())
        return [a for a in found if a.id.endswith(f"_{index}")] if index else found


def parse_look(answer: Mapping[str, JsonValue], taken: float, before: Look | None = None) -> Look:
    """Read the login node's answer. Raises TransientError when it is none.

    ``before`` is the look that came before it: what has not changed since is not read again.
    """
    lines = answer.get("rows")
    if not isinstance(lines, list):
        raise TransientError("the look at the queue cannot be read")
    if before is not None and before.lines == lines:
        rows, known = before.rows, before.known
    else:
        rows, known = _rows(lines, before.known if before is not None else {})
    accounting: dict[str, list[Account]] | None = None
    if isinstance(answer.get("accounting"), list):
        accounting = {}
        for account in map(Account._make, _lines(answer["accounting"], len(Account._fields))):
            accounting.setdefault(account.name, []).append(account)
    submissions = {
        token: (said[0], said[1])
        for token, said in _mapping(answer.get("submissions")).items()
        if isinstance(said, list) and len(said) == 2
        if isinstance(said[0], str) and isinstance(said[1], str)
    }
    try:
        records = {
            token: Record.model_validate(record)
            for token, record in _mapping(answer.get("records")).items()
        }
    except ValidationError as error:
        raise TransientError(f"a run's record cannot be read: {error.errors()[0]['msg']}") from None
    orphans = answer.get("orphans")
    told = tuple(map(str, orphans)) if isinstance(orphans, list) else ()
    waited = answer.get("waited")
    slow = float(waited) if isinstance(waited, int | float) else 0.0
    return Look(
        *(taken, rows, records, submissions, accounting, slow),
        orphans=told,
        lines=lines,
        known=known,
    )


def _rows(
    lines: Sequence[JsonValue], before: Mapping[str, Row]
) -> tuple[Mapping[str, Sequence[Row]], Mapping[str, Row]]:
    """The queue's lines by name of the job, and by themselves."""
    rows: dict[str, list[Row]] = {}
    known: dict[str, Row] = {}
    for line in lines:
        if not isinstance(line, str):
            continue
        row = before.get(line)
        if row is None:
            fields = line.split("|", len(Row._fields) - 1)
            if len(fields) != len(Row._fields):
                continue
            row = Row._make(fields)
        known[line] = row
        rows.setdefault(row.name, []).append(row)
    return rows, known


@lru_cache(maxsize=1024)
def expand(indices: str) -> frozenset[str]:
    """``[1-3,9%2]`` or ``4`` as indices; empty for anything else.

    Kept: each of a thousand runs that went as one array asks what the array's one line stands for.
    """
    found: set[str] = set()
    for part in indices.strip("[]").partition("%")[0].split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (not last or last.isdecimal()):
            low, high = int(first), int(last or first)
            found.update(map(str, range(low, min(high, low + _MOST_INDICES) + 1)))
    return frozenset(found)


def _mapping(value: JsonValue) -> Mapping[str, JsonValue]:
    if not isinstance(value, dict):
        raise TransientError("the look at the queue cannot be read")
    return value


def _lines(value: JsonValue, width: int) -> Iterator[list[str]]:
    """Those lines that are so many strings."""
    if not isinstance(value, list):
        raise TransientError("the look at the queue cannot be read")
    for line in value:
        if isinstance(line, list) and len(line) == width and _TEXT.issuperset(map(type, line)):
            yield line  # type: ignore[misc] # only strings, as was just seen
