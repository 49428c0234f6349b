"""What a look means: every state of Slurm, and every way in which something can be missing."""

from __future__ import annotations

import pytest

from windlass_adapters.slurm.outcome import Evidence, Kind, Verdict, judge
from windlass_adapters.slurm.snapshot import Account, Record, Row
from windlass_schemas import Reason

NAME = "wl-token"


def row(state: str, reason: str = "None", *, id_: str = "12", element: str = "N/A") -> Row:
    """A line of the queue."""
    return Row(id_, "12" if element != "N/A" else id_, element, state, reason, "n1", NAME)


def account(state: str, *, id_: str = "12", submitted: str = "2026-01-01") -> Account:
    """A line of accounting."""
    return Account(id_, state, "0:0", submitted, "n1", NAME)


def record(end: str | None = "0", claim: str | None = "12", **more: object) -> Record:
    """What a run wrote."""
    order = {"name": "n", "uid": "u", "digest": "d", **more.pop("order", {})}  # type: ignore[dict-item]
    return Record.model_validate(
        {
            "order": order,
            "jobid": "12 wl-token -",
            "claims": {} if claim is None else {"": claim},
            "ends": {} if end is None else {"": [end, claim or "12", "0"]},
            **more,
        }
    )


def verdict(evidence: Evidence) -> tuple[Kind, Reason | None, bool]:
    """What it comes to, without the words."""
    found = judge(evidence)
    return found.kind, found.reason, found.counts


@pytest.mark.parametrize(
    ("state", "end", "expected"),
    [
        ("COMPLETED", "0", (Kind.GOOD, None, True)),
        ("COMPLETED", "3", (Kind.BAD, Reason.FAILED, True)),
        ("FAILED", "3", (Kind.BAD, Reason.FAILED, True)),
        ("FAILED", "0", (Kind.BAD, Reason.FAILED, True)),
        ("FAILED", None, (Kind.BAD, Reason.NODE_FAILED, False)),
        ("OUT_OF_MEMORY", "0", (Kind.BAD, Reason.OUT_OF_MEMORY, True)),
        ("TIMEOUT", "143", (Kind.BAD, Reason.TIME_LIMIT_EXCEEDED, True)),
        ("DEADLINE", None, (Kind.BAD, Reason.TIME_LIMIT_EXCEEDED, True)),
        ("NODE_FAIL", None, (Kind.BAD, Reason.NODE_FAILED, False)),
        ("BOOT_FAIL", None, (Kind.BAD, Reason.NODE_FAILED, False)),
        ("PREEMPTED", None, (Kind.BAD, Reason.PREEMPTED, False)),
        ("CANCELLED", "143", (Kind.BAD, Reason.CANCELLED, True)),
    ],
)
@pytest.mark.parametrize("where", ["queue", "accounting"])
def test_each_end_has_its_reason_wherever_slurm_says_it(
    state: str, end: str | None, expected: tuple[Kind, Reason | None, bool], where: str
) -> None:
    """The queue and accounting use the same words."""
    told = record(end)
    queue = Evidence(rows=[row(state)], record=told)
    by = "CANCELLED by 1000" if state == "CANCELLED" else state
    books = Evidence(record=told, accounts=[account(by)], has_accounting=True)
    assert verdict(queue if where == "queue" else books) == expected


@pytest.mark.parametrize(
    ("state", "reason", "kind", "why"),
    [
        ("PENDING", "Priority", Kind.ALIVE, None),
        ("PENDING", "JobHeldAdmin", Kind.ALIVE, Reason.HELD),
        ("PENDING", "BadConstraints", Kind.HOPELESS, Reason.UNSCHEDULABLE),
        ("PENDING", "ReqNodeNotAvail, UnavailableNodes:n1", Kind.ALIVE, None),
        ("REQUEUE_HOLD", "None", Kind.ALIVE, Reason.HELD),
        ("SUSPENDED", "None", Kind.ALIVE, Reason.HELD),
        ("RUNNING", "None", Kind.ALIVE, None),
        ("COMPLETING", "None", Kind.ALIVE, None),
        ("SOMETHING_NEW", "None", Kind.ALIVE, None),
    ],
)
def test_what_is_in_the_queue_is_alive(
    state: str, reason: str, kind: Kind, why: Reason | None
) -> None:
    """A word that nobody knows is not an end."""
    found = judge(Evidence(rows=[row(state, reason)], record=record(None)))
    assert (found.kind, found.reason) == (kind, why)


def test_missing_from_the_queue_is_not_done() -> None:
    """Only its record or accounting can say so; after long it is lost."""
    silent = record(None)
    assert judge(Evidence(record=silent, unseen_for=299)).kind is Kind.ALIVE
    assert judge(Evidence(record=silent, unseen_for=301)).kind is Kind.LOST
    assert judge(Evidence(record=record("0"))).kind is Kind.GOOD
    books = Evidence(record=record("0"), accounts=None, has_accounting=True)
    assert judge(books).kind is Kind.ALIVE, "accounting may still say that it ran out of memory"
    late = Evidence(record=record("0"), accounts=(), has_accounting=True, unseen_for=121)
    assert judge(late).kind is Kind.GOOD
    assert judge(Evidence(record=Record(missing=True))).kind is Kind.GONE


def test_a_run_that_was_told_to_stop_is_not_the_programs_failure() -> None:
    """The queue has forgotten why; its own record knows what it heard."""
    told = record(ends={"": ["143", "12", "0", "term"]})
    assert verdict(Evidence(record=told)) == (Kind.BAD, Reason.INTERRUPTED, False)
    told = record(ends={"": ["143", "12", "0", "time"]})
    late = (Kind.BAD, Reason.TIME_LIMIT_EXCEEDED, True)
    assert verdict(Evidence(record=told)) == late
    assert judge(Evidence(rows=[row("PREEMPTED")], record=told)).reason is (Reason.PREEMPTED)


def test_completed_without_a_record_is_no_success() -> None:
    """The disk may be behind; after two minutes nothing is known of it."""
    assert judge(Evidence(rows=[row("COMPLETED")], record=record(None))).kind is Kind.ALIVE
    late = judge(Evidence(rows=[row("COMPLETED")], record=record(None), unseen_for=121))
    assert (late.kind, late.reason, late.counts) == (Kind.BAD, Reason.RUN_LOST, False)


def test_the_job_that_has_the_claim_is_the_one_that_counts() -> None:
    """Two jobs of one run: the loser's end is nothing."""
    rows = [row("FAILED", "NonZeroExitCode", id_="13"), row("RUNNING")]
    assert judge(Evidence(rows=rows, record=record(None))).kind is Kind.ALIVE
    rows = [row("FAILED", "NonZeroExitCode", id_="13"), row("COMPLETED")]
    assert judge(Evidence(rows=rows, record=record("0"))).kind is Kind.GOOD
    rows = [row("FAILED", "NonZeroExitCode", id_="13")]
    assert judge(Evidence(rows=rows, record=record("0"))).kind is Kind.GOOD


def test_accounting_of_an_earlier_time_of_a_requeued_job_does_not_count() -> None:
    """The newest line of the job that has the claim."""
    lines = [
        account("PREEMPTED", submitted="2026-01-01"),
        account("COMPLETED", submitted="2026-02"),
    ]
    found = Evidence(record=record("0"), accounts=lines, has_accounting=True)
    assert judge(found).kind is Kind.GOOD


def test_an_id_that_came_back_for_another_job_is_not_believed() -> None:
    """Its name is not ours, so that the look has left it out; nothing is known of ours."""
    assert judge(Evidence(record=record(None, claim=None))).kind is Kind.ALIVE


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ("lost", (Kind.BAD, Reason.RUN_LOST, False)),
        ("lost: the node could not start it", (Kind.BAD, Reason.RUN_LOST, False)),
        ("unschedulable: BadConstraints", (Kind.BAD, Reason.UNSCHEDULABLE, True)),
        ("asked", (Kind.ALIVE, None, True)),
    ],
)
def test_who_cancelled_it_decides(marker: str, expected: tuple[Kind, Reason | None, bool]) -> None:
    """We did, for a reason that is written down."""
    told = record(None, claim="cancelled", cancelled=marker)
    assert verdict(Evidence(rows=[row("CANCELLED")], record=told)) == expected
    assert verdict(Evidence(record=told)) == expected


def test_a_job_that_its_node_could_not_start_was_cancelled_by_nobody() -> None:
    """It had a node and began nothing: Slurm cancels what it may not queue again."""
    silent = record(None, claim=None)
    assert judge(Evidence(rows=[row("CANCELLED")], record=silent)).kind is Kind.LOST
    books = [account("CANCELLED by 0")]
    assert judge(Evidence(record=silent, accounts=books, has_accounting=True)).kind is Kind.LOST
    person = (Kind.BAD, Reason.CANCELLED, True)
    waited = row("CANCELLED")._replace(nodes="")
    assert verdict(Evidence(rows=[waited], record=silent)) == person
    books = [account("CANCELLED by 0")._replace(nodes="None assigned")]
    assert verdict(Evidence(record=silent, accounts=books, has_accounting=True)) == person
    books = [account("CANCELLED by 1000")]
    assert verdict(Evidence(record=silent, accounts=books, has_accounting=True)) == person


def test_elements_that_a_person_took_out_of_the_queue_were_cancelled() -> None:
    """The queue shows one line for them, without an index."""
    told = record(
        None, claims={"0": "12_0"}, ends={"0": ["0", "12_0", "0"]}, order={"array": [0, 1]}
    )
    ran, out = row("COMPLETED", element="0", id_="13"), row("CANCELLED")._replace(nodes="")
    assert verdict(Evidence(rows=[ran, out], record=told)) == (Kind.BAD, Reason.CANCELLED, True)
    assert judge(Evidence(rows=[ran], record=told, unseen_for=301)).kind is Kind.LOST


def test_a_job_that_a_controller_forgot_and_began_again_was_cancelled_by_nobody() -> None:
    """Its claim is older than what Slurm says was its start, and nobody told it to stop."""
    odd = record(None, relaunched={"": 6.0})
    killed = Evidence(rows=[row("CANCELLED")], record=odd, unseen_for=121)
    assert judge(killed).kind is Kind.LOST
    soon = Evidence(rows=[row("CANCELLED")], record=odd, unseen_for=5)
    assert judge(soon).kind is Kind.ALIVE, "what had begun may still be there"
    person = (Kind.BAD, Reason.CANCELLED, True)
    for told in (
        record(None, relaunched={"": 0.4}),
        record("143", relaunched={"": 6.0}),
        record(None, relaunched={"": 6.0}, order={"requeue": True}),
        record(None),
    ):
        assert verdict(Evidence(rows=[row("CANCELLED")], record=told, unseen_for=121)) == person


@pytest.mark.parametrize("end", [None, "0", "1"])
def test_a_job_that_slurm_began_twice_is_not_the_programs_failure(end: str | None) -> None:
    """The second start ends at once and says so; the first one is being killed."""
    told = record(end, notes={"": [["99", "12"]]})
    failed = Evidence(rows=[row("FAILED")], record=told, unseen_for=121)
    assert verdict(failed) == (Kind.BAD, Reason.NODE_FAILED, False)
    soon = judge(Evidence(rows=[row("FAILED")], record=told))
    assert soon.kind is (Kind.ALIVE if end is None else Kind.BAD)


@pytest.mark.parametrize(
    ("code", "reason", "counts", "words"),
    [
        ("94", Reason.FAILED, True, "could not be pulled"),
        ("95", Reason.FAILED, False, "no program that runs containers"),
        ("97", Reason.NODE_FAILED, False, "not to be seen"),
    ],
)
def test_a_job_that_ran_nothing_says_why(
    code: str, reason: Reason, counts: bool, words: str
) -> None:
    """Reserved exits."""
    told = record(None, notes={"": [[code, "12"]]})
    found = judge(Evidence(rows=[row("FAILED")], record=told))
    assert (found.reason, found.counts) == (reason, counts)
    assert words in found.message


def test_a_preempted_job_that_may_come_back_is_waited_for() -> None:
    """For two minutes."""
    told = record(None, order={"requeue": True})
    waiting = Evidence(rows=[row("PREEMPTED")], record=told, unseen_for=10)
    assert judge(waiting).kind is Kind.ALIVE
    over = Evidence(rows=[row("PREEMPTED")], record=told, unseen_for=121)
    assert judge(over).reason is Reason.PREEMPTED


def array(ends: dict[str, str]) -> Record:
    """An array of three."""
    return Record.model_validate(
        {
            "order": {"name": "n", "uid": "u", "digest": "d", "array": [0, 1, 2]},
            "jobid": "12 wl-token -",
            "claims": {i: f"12_{i}" for i in ends},
            "ends": {i: [end, f"12_{i}", "0"] for i, end in ends.items()},
        }
    )


def elements(*states: str) -> list[Row]:
    """A line for each element."""
    return [row(s, id_=str(20 + i), element=str(i)) for i, s in enumerate(states)]


def test_an_array_is_over_when_all_its_elements_are() -> None:
    """And failed when one of them is."""
    some = judge(Evidence(rows=[*elements("COMPLETED"), row("PENDING", element="[1-2%1]")],
                          record=array({"0": "0"})))  # fmt: skip
    assert (some.kind, some.message[:31]) == (Kind.ALIVE, "1 of 3 elements have ended; job")
    good = Evidence(rows=elements(*["COMPLETED"] * 3), record=array({"0": "0", "1": "0", "2": "0"}))
    assert judge(good) == Verdict(Kind.GOOD, job="12")
    bad = judge(Evidence(rows=elements("COMPLETED", "FAILED", "COMPLETED"),
                         record=array({"0": "0", "1": "4", "2": "0"})))  # fmt: skip
    assert (bad.kind, bad.reason, bad.counts) == (Kind.BAD, Reason.FAILED, True)
    assert bad.message.startswith("1 of 3 elements failed (1); element 1: exit code 4")
