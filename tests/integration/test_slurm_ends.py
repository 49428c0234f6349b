"""Ends that are nobody's fault, or the clock's, on a real cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic import JsonValue

from rig.hpc import Hpc, observed, outputs_of, ran, settled, start, until
from rig.slurm import Cluster, cluster
from rig.slurm_site import Site
from windlass_adapters.base import State, TerminalError, WaitingError
from windlass_adapters.slurm import SlurmAdapter
from windlass_schemas import Reason


@pytest.fixture(scope="module")
def site() -> Iterator[Cluster]:
    """One small node, and a controller that forgets at once."""
    with cluster(Site(nodes=1, cpus=2, min_job_age=2)) as found:
        yield found


@pytest.fixture
def hpc(site: Cluster, tmp_path: Path) -> Hpc:
    """A Target of the test's own."""
    return Hpc(site, tmp_path, grace="1s", lostAfter="2s")


@pytest.fixture
async def adapter(hpc: Hpc) -> AsyncIterator[SlurmAdapter]:
    """Its adapter, opened."""
    async with hpc.adapter() as opened:
        yield opened


async def test_a_run_that_the_queue_forgot_without_a_result_is_lost_and_can_never_begin(
    hpc: Hpc, adapter: SlurmAdapter
) -> None:
    """It uses up no attempt; its claim is taken before anybody says so."""
    job = hpc.shell("true", options={"partition": "closed"})
    try:
        made = await start(adapter, job)
    except WaitingError:
        pytest.fail("a partition that is down takes jobs here")
    await asyncio.to_thread(hpc.cluster.cancel, made.message.rpartition(" ")[2])
    await until(lambda: not hpc.cluster.squeue(), "the queue has forgotten it")
    found = await settled(adapter, job.owner, made.external)
    assert (found.state, found.reason) == (State.FAILED, Reason.RUN_LOST)
    assert not found.attempt_counts
    assert hpc.claims() == ["cancelled"]


async def test_a_run_that_ended_while_nobody_looked_has_ended_all_the_same(
    hpc: Hpc, adapter: SlurmAdapter
) -> None:
    """The queue has forgotten it; its own record says how."""
    job = hpc.shell("echo 1 > o", outputs={"o": "o"})
    made = await start(adapter, job)
    folder = hpc.run_folder(job.owner, made.external)
    await until(lambda: (folder / "rc").exists(), "it has ended")
    await until(lambda: not hpc.cluster.squeue(), "the queue has forgotten it")
    found = await settled(adapter, job.owner, made.external)
    assert found.state is State.SUCCEEDED, found


async def test_a_preempted_run_uses_up_no_attempt(hpc: Hpc, adapter: SlurmAdapter) -> None:
    """The scheduler took its machine away."""
    low = hpc.shell("sleep 60", "low", options={"partition": "scavenge", "exclusive": True})
    made = await start(adapter, low)
    await observed(adapter, low.owner, made.external, lambda f: "runs on" in f.message, "it runs")
    high = hpc.shell("true", "high", uid="a" * 16, options={"exclusive": True})
    other = await start(adapter, high)
    found = await settled(adapter, low.owner, made.external)
    # Which of the two depends on who is faster: the look, or the queue that forgets.
    assert found.reason in (Reason.PREEMPTED, Reason.INTERRUPTED)
    assert not found.attempt_counts
    assert (await settled(adapter, high.owner, other.external)).state is State.SUCCEEDED


@pytest.mark.long
@pytest.mark.timeout(400)
async def test_a_run_that_takes_too_long_is_ended_by_slurm(
    hpc: Hpc, adapter: SlurmAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slurm counts in minutes, and looks at the clock now and then."""
    monkeypatch.setattr("rig.hpc.PATIENCE", 300.0)
    job = hpc.shell("echo up; sleep 600", timeLimit="5s")
    made = await start(adapter, job)
    found = await settled(adapter, job.owner, made.external)
    assert (found.reason, found.attempt_counts) == (Reason.TIME_LIMIT_EXCEEDED, True)
    assert "ran longer than it may" in found.message


async def test_a_job_that_its_node_cannot_start_uses_up_no_attempt_and_is_no_cancellation(
    tmp_path: Path,
) -> None:
    """Slurm calls it cancelled, since it may not be queued again; its claim is taken first."""
    with cluster(Site(nodes=1, lines=("Prolog=/bin/false",))) as broken:
        hpc = Hpc(broken, tmp_path, lostAfter="2s")
        job = hpc.shell("true")
        async with hpc.adapter() as adapter:
            made = await start(adapter, job)
            found = await settled(adapter, job.owner, made.external)
        assert [row[3] for row in broken.squeue()] == ["CANCELLED"]
        assert hpc.claims() == ["cancelled"]
    assert (found.state, found.reason) == (State.FAILED, Reason.RUN_LOST), found
    assert "could not start it" in found.message
    assert not found.attempt_counts


async def test_a_run_goes_where_its_reservation_and_its_constraint_say(tmp_path: Path) -> None:
    """What the site does not have is refused in its own words."""
    with cluster(Site(nodes=2)) as site:
        site.admin("scontrol", "update", "nodename=n2", "availablefeatures=fast")
        site.admin("scontrol", "update", "nodename=n2", "activefeatures=fast")
        users = f"users={site.user.name}"
        lab = ["reservationname=lab", "starttime=now", "duration=60", users, "nodes=n1"]
        site.admin("scontrol", "create", "reservation", *lab)
        hpc = Hpc(site, tmp_path)
        where = 'echo "$SLURM_JOB_NODELIST $SLURM_JOB_RESERVATION" > out'
        asked: list[dict[str, JsonValue]] = [
            {"reservation": "lab"},
            {"constraint": "fast"},
            {"reservation": "nobodys"},
            {"constraint": "slow"},
        ]
        jobs = [
            hpc.shell(where, f"job-{n}", uid=f"{n:016}", outputs={"out": "out"}, options=options)
            for n, options in enumerate(asked)
        ]
        async with hpc.adapter() as adapter:
            found = await asyncio.gather(*(ran(adapter, job) for job in jobs[:2]))
            for job, words in zip(jobs[2:], ("reservation", "[Ff]eature"), strict=True):
                with pytest.raises(TerminalError, match=words):
                    await start(adapter, job)
    assert [outputs_of(hpc, each)["out"] for each in found] == [b"n1 lab\n", b"n2 \n"]
