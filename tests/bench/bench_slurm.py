"""Jobs on a real cluster: how fast they get there, what a look costs, how soon an end is seen.

``python tests/bench/bench_slurm.py [PIECE ...] [--jobs N]`` with ``tests`` on PYTHONPATH; without a
piece all of them, one after the other. The pieces, each with a cluster of its own and under four
minutes on two cores:

    submit  distinct jobs over SSH beside a loop of sbatch, as an array, coalesced, and beside one
            exec a job: OpenSSH and asyncssh, one at a time and four at once
    peers   submitit and psij-python, on the login node itself
    looks   controller RPCs of a look, by sdiag, at 10, N and 5 N jobs
    ends    how late an end is seen
    tick    CPU of a look at 10 N tracked jobs
    daemon  how late the real daemon sees an end among N runs, and what it spends while they wait

Everything shares the machine: the daemon's side, sshd, the login node and the controller. Nodes are
drained while jobs are submitted, so that nothing starts: compute nodes are machines of their own.
Ratios within one run are what is promised; milliseconds are those of this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.peers import python_with
from bench.slurm import others
from bench.slurm.daemon import POLL, lateness
from bench.slurm.spent import Spent, measured
from rig.hpc import Hpc, create_of
from rig.slurm import Cluster, cluster
from rig.slurm_site import Site
from windlass.app import GARBAGE
from windlass_adapters.base import Desired, External, Found, Owner, State
from windlass_adapters.slurm import SlurmAdapter

FEW = 100
"""Jobs of those who need an exec, or a second, for each."""
CONTROLLER_LOG = "slurmctld.log"
AT_ONCE = 4
"""As many sessions as a server allows surely: its ten are free again only a moment later."""


@dataclass
class Report:
    """Figures with their bars."""

    missed: list[str] = field(default_factory=list)

    def figure(
        self,
        what: str,
        value: float,
        unit: str,
        most: float | None = None,
        least: float | None = None,
    ) -> None:
        """Print one; remember it if it is on the wrong side of its bar."""
        bar = "" if most is None else f"   (at most {most:g} {unit})"
        bar += "" if least is None else f"   (at least {least:g} {unit})"
        bad = (most is not None and value > most) or (least is not None and value < least)
        print(f"{'MISSED' if bad else '      '} {what:<62} {value:>8.2f} {unit}{bar}", flush=True)
        if bad:
            self.missed.append(what)

    def each(self, what: str, spent: Spent, count: int) -> Spent:
        """Print what one of many took, and return it."""
        one = Spent(spent.wall / count, spent.cpu / count)
        self.figure(f"{what}, each", 1000 * one.wall, "ms")
        self.figure("  CPU of daemon, sshd, login node and controller, each", 1000 * one.cpu, "ms")
        return one


def stop_nodes(site: Cluster) -> None:
    """Let jobs be queued and none start."""
    nodes = f"nodename=n[1-{site.site.nodes}]"
    site.admin("scontrol", "update", nodes, "state=drain", "reason=bench")


def drain(site: Cluster) -> None:
    """Empty the queue."""
    for name in (site.user.name, "root"):
        site.admin("scancel", "--user", name, check=False)
    site.await_state(
        lambda: not site.squeue("%i", "-t", "pending,running,completing"), "an empty queue"
    )


def many(hpc: Hpc, count: int, text: str = "sleep 600", **options: object) -> list[Desired]:
    """Jobs that differ, each with a script of its own to stage."""
    return [
        hpc.job(
            f"job-{n}",
            uid=f"{n:016x}",
            entrypoint="run.sh",
            kept={"run.sh": f"#!/bin/sh\n# {n}\n{text.format(n=n)}\n"},
            options={"time": "10m", **options},  # type: ignore[dict-item] # plain values
        )
        for n in range(count)
    ]


async def send(adapter: SlurmAdapter, wanted: Sequence[Desired]) -> list[tuple[Owner, External]]:
    """Send them all, as the kernel does: many at once."""
    allowed = asyncio.Semaphore(adapter.capabilities.max_concurrent)

    async def one(desired: Desired) -> tuple[Owner, External]:
        async with allowed:
            found = await adapter.apply(desired.owner, create_of(adapter, desired))
            return desired.owner, found.external

    return list(await asyncio.gather(*(one(each) for each in wanted)))


async def submit(site: Cluster, folder: Path, report: Report, jobs: int) -> None:
    """Against the bare loop, as an array, coalesced, and against one exec a job."""
    stop_nodes(site)
    others.loop(site, FEW)
    drain(site)
    loop = report.each(f"{jobs} sbatch in a loop on the login node", others.loop(site, jobs), jobs)
    drain(site)
    hpc = Hpc(site, folder / "distinct")
    wanted = many(hpc, jobs)
    async with hpc.adapter() as adapter:
        with measured(site) as spent:
            await send(adapter, wanted)
        ours = report.each(f"{jobs} distinct jobs, staged, over SSH", spent, jobs)
        report.figure("  beside the loop", ours.wall / loop.wall, "x", most=2.5)
        report.figure("  beside the loop, by CPU", ours.cpu / loop.cpu, "x")
        report.figure("  authentications for them", adapter.connection.opened, "", most=1)
    drain(site)
    hpc = Hpc(site, folder / "array")
    async with hpc.adapter() as adapter:
        job = hpc.job("array", command=["sleep", "600"], array={"indices": f"0-{jobs - 1}"})
        with measured(site) as spent:
            await send(adapter, [job])
        report.figure(f"{jobs} jobs as an array", spent.wall, "s", most=3)
    drain(site)
    hpc = Hpc(site, folder / "coalesced")
    wanted = many(hpc, jobs, coalesce=True)
    async with hpc.adapter() as adapter:
        with measured(site) as spent:
            await send(adapter, wanted)
        report.each(f"{jobs} jobs of one shape, coalesced", spent, jobs)
    drain(site)
    await execs(site, report, ours, loop)


async def execs(site: Cluster, report: Report, ours: Spent, loop: Spent) -> None:
    """One exec a job over one connection: a folder, the job's script, sbatch."""
    count = 2 * FEW
    empty = report.each("one exec of true, OpenSSH", others.openssh(site, count, 1, "true"), count)
    bound = (empty.wall + loop.wall) / loop.wall
    report.figure("  with one sbatch in it, beside that sbatch alone", bound, "x")
    for at_once in (1, AT_ONCE):
        for name in ("OpenSSH", "asyncssh"):
            if name == "OpenSSH":
                spent = await asyncio.to_thread(others.openssh, site, count, at_once)
            else:
                spent = await others.in_process(site, count, at_once)
            drain(site)
            one = report.each(f"one exec a job, {name}, {at_once} at once", spent, count)
            bar = 3.0 if at_once == 1 else None
            report.figure("  Windlass is faster", one.wall / ours.wall, "x", least=bar)
            report.figure("  Windlass is faster, by CPU", one.cpu / ours.cpu, "x")


async def peers(site: Cluster, folder: Path, report: Report, _jobs: int) -> None:
    """submitit and psij-python on the same cluster, on the login node itself."""
    python = python_with(*others.PEERS)
    stop_nodes(site)
    report.each("sbatch in a loop on the login node", others.loop(site, FEW), FEW)
    hpc = Hpc(site, folder / "beside")
    wanted = many(hpc, FEW)
    async with hpc.adapter() as adapter:
        with measured(site) as spent:
            await send(adapter, wanted)
    ours = report.each(f"Windlass over SSH, {FEW} jobs and its first connection", spent, FEW)
    for name in others.PEERS:
        spent = others.peer(site, python, name, folder / name, FEW)
        one = report.each(f"{name}, on the login node", spent, FEW)
        report.figure("  Windlass over SSH is faster", one.wall / ours.wall, "x")
        drain(site)


async def looks(site: Cluster, folder: Path, report: Report, jobs: int) -> None:
    """What one look costs the controller, at 10, N and 5 N jobs."""
    hpc = Hpc(site, folder / "looks", limits={"poll": "1s", "idlePoll": "1s", "batch": 500})
    async with hpc.adapter() as adapter:
        ours: list[tuple[Owner, External]] = []
        wanted = many(hpc, 5 * jobs, coalesce=True)
        for count in (10, jobs, 5 * jobs):
            ours += await send(adapter, wanted[len(ours) : count])
            await adapter.observe_many(ours)
            site.sdiag_reset()
            before = adapter._runs.watch.looks
            while adapter._runs.watch.looks < before + 3:
                await adapter.observe_many(ours)
                await asyncio.sleep(0.1)
            asked = {name: n for name, n in site.sdiag().items() if name.startswith("REQUEST_JOB")}
            each = sum(asked.values()) / (adapter._runs.watch.looks - before)
            report.figure(f"controller RPCs a look at {count} jobs", each, "", most=1)
    drain(site)


async def tick(site: Cluster, folder: Path, report: Report, jobs: int) -> None:
    """What this process spends on one look at 10 N jobs, each with a line of its own."""
    tracked = 10 * jobs
    gc.set_threshold(*GARBAGE)  # as the daemon does
    stop_nodes(site)
    hpc = Hpc(site, folder / "tick", limits={"poll": "1s", "idlePoll": "1s", "batch": 500})
    wanted = [
        hpc.job(f"job-{n}", uid=f"{n:016x}", command=["sleep", "600"], options={"time": "10m"})
        for n in range(tracked)
    ]
    async with hpc.adapter() as adapter:
        ours = await send(adapter, wanted)
        await adapter.observe_many(ours)
        spent: list[float] = []
        until = time.monotonic() + 60
        while len(spent) < 7 and time.monotonic() < until:
            before, taken = time.process_time(), adapter._runs.watch.looks
            await adapter.observe_many(ours)
            if adapter._runs.watch.looks > taken:
                spent.append((time.process_time() - before) * 1000)
            await asyncio.sleep(0.2)
        what = f"CPU of a look at {tracked} jobs and a pass over each, median of {len(spent)}"
        report.figure(what, statistics.median(spent), "ms", most=150)
    drain(site)


async def ends(site: Cluster, folder: Path, report: Report, _jobs: int) -> None:
    """How long after its end a job is seen to have ended.

    First spread over twenty seconds; then all in the same moment, when the two cores that play the
    compute nodes, too, are what is measured.
    """
    poll = 2.0
    for name, text in (("spread over 20 s", "sleep $(({n} % 20 + 5))"), ("at once", "sleep 5")):
        each = f"{poll:g}s"
        at = folder / name.replace(" ", "-")
        hpc = Hpc(site, at, limits={"poll": each, "idlePoll": each})
        async with hpc.adapter() as adapter:
            wanted = many(hpc, FEW, text + "; date +%s.%N > end", partition="cpu")
            ours = await send(adapter, wanted)
            seen: dict[External, float] = {}
            while len(seen) < len(ours):
                answers = await adapter.observe_many([p for p in ours if p[1] not in seen])
                for external, answer in answers.items():
                    if isinstance(answer, Found) and answer.state is not State.PROGRESSING:
                        seen[external] = time.time()
                await asyncio.sleep(0.1)
            late = [
                seen[external] - float((hpc.run_folder(owner, external) / "work/end").read_text())
                for owner, external in ours
            ]
        p95 = statistics.quantiles(late, n=20)[-1]
        bar = poll + 2 if name != "at once" else None
        report.figure(f"end seen, p95 of {len(late)} {name}, poll {poll:g} s", p95, "s", most=bar)
    drain(site)


async def daemon(site: Cluster, folder: Path, report: Report, jobs: int) -> None:
    """Through commit, daemon and status: the ends of 100 of N runs."""
    await late(site, folder, report, jobs, 0)


async def burst(site: Cluster, folder: Path, report: Report, jobs: int) -> None:
    """The same, while as many more are declared and submitted."""
    await late(site, folder, report, jobs, jobs)


async def late(site: Cluster, folder: Path, report: Report, jobs: int, more: int) -> None:
    """How late statuses are."""
    log = folder / CONTROLLER_LOG
    found = await asyncio.to_thread(lateness, site, log, folder / "daemon", jobs, FEW, more)
    what = f"end seen by the daemon among {jobs} runs"
    what += f", {more} submitted meanwhile" if more else ""
    since = {
        "since the program's": [each.of_program for each in found],
        "since Slurm's": [each.of_slurm for each in found],
    }
    for whose, seconds in since.items():
        p95 = statistics.quantiles(seconds, n=20)[-1]
        report.figure(f"{what}, {whose}, p50", statistics.median(seconds), "s")
        report.figure(f"{what}, {whose}, p95 of {FEW}, poll {POLL:g} s", p95, "s", most=POLL + 2)
        report.figure(f"{what}, {whose}, at most", max(seconds), "s")
    drain(site)


Piece = Callable[[Cluster, Path, Report, int], Awaitable[None]]
PIECES: dict[str, Piece] = {
    "submit": submit,
    "peers": peers,
    "looks": looks,
    "ends": ends,
    "tick": tick,
    "daemon": daemon,
    "burst": burst,
}


async def run(piece: Piece, report: Report, jobs: int) -> None:
    """One piece, on a cluster of its own."""
    folder = Path(tempfile.mkdtemp(prefix="wl-bench-"))
    try:
        log = (f"SlurmctldLogFile={folder / CONTROLLER_LOG}",)  # with the time of each line
        with cluster(Site(max_array_size=10_001, nodes=2, lines=log)) as site:
            await piece(site, folder, report, jobs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Measure, and say what was missed."""
    parser = argparse.ArgumentParser(description="Measure the Slurm adapter.")
    parser.add_argument("pieces", nargs="*", choices=[*PIECES, []], metavar="PIECE")
    parser.add_argument(
        "--jobs", type=int, default=int(os.environ.get("WINDLASS_BENCH_JOBS", 1000))
    )
    asked = parser.parse_args()
    report = Report()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before")
    for name in asked.pieces or PIECES:
        print(f"-- {name}")
        asyncio.run(run(PIECES[name], report, asked.jobs))
    if report.missed:
        print("missed: " + "; ".join(report.missed))


if __name__ == "__main__":
    main()
