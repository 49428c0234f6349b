"""Jobs on a real cluster: how fast they get there, what a look costs, how soon an end is seen.

Everything in one run on one machine: the ratios are what is promised.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rig.hpc import Hpc, create_of
from rig.slurm import Cluster, cluster
from rig.slurm_site import Site
from windlass_adapters.base import Desired, External, Found, Owner, State
from windlass_adapters.slurm import SlurmAdapter

JOBS = int(os.environ.get("WINDLASS_BENCH_JOBS", "1000"))
TRACKED = 10 * JOBS
SHORT = 100
"""Jobs of those who need one exec for each: as many as fit into a minute."""


@dataclass
class Report:
    """Figures with their bars."""

    missed: list[str] = field(default_factory=list)

    def figure(self, what: str, value: float, unit: str, most: float | None = None) -> None:
        """Print one; remember it if it is over its bar."""
        bar = "" if most is None else f"   (at most {most:g} {unit})"
        over = most is not None and value > most
        print(f"{'MISSED' if over else '      '} {what:<58} {value:>9.2f} {unit}{bar}", flush=True)
        if over:
            self.missed.append(what)


async def timed(work: Awaitable[object]) -> float:
    """Seconds that something takes."""
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


def bare_loop(site: Cluster, count: int) -> float:
    """``for ...; do sbatch; done`` on the login node itself; seconds."""
    script = site.here(site.login.root / "bare.sh")
    script.write_text("#!/bin/sh\ntrue\n")
    line = f"for i in $(seq {count}); do sbatch --hold -o /dev/null {site.login.root}/bare.sh; done"
    started = time.perf_counter()
    site.run("sh", "-c", line, timeout=600)
    return time.perf_counter() - started


def drain(site: Cluster) -> None:
    """Empty the queue."""
    site.admin("scancel", "--user", site.user.name, check=False)
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
            kept={"run.sh": f"#!/bin/sh\n# {n}\n{text}\n"},
            options={"time": "10m", **options},  # type: ignore[dict-item] # plain values
        )
        for n in range(count)
    ]


async def submit(adapter: SlurmAdapter, wanted: Sequence[Desired]) -> list[tuple[Owner, External]]:
    """Send them all, as the kernel does: many at once."""
    allowed = asyncio.Semaphore(adapter.capabilities.max_concurrent or 64)

    async def one(desired: Desired) -> tuple[Owner, External]:
        async with allowed:
            found = await adapter.apply(desired.owner, create_of(adapter, desired))
            return desired.owner, found.external

    return list(await asyncio.gather(*(one(each) for each in wanted)))


async def submissions(site: Cluster, folder: Path, report: Report) -> None:
    """Against the bare loop, the array, and one exec a job."""
    loop = bare_loop(site, JOBS)
    report.figure(f"{JOBS} sbatch in a loop on the login node", loop, "s")
    drain(site)
    hpc = Hpc(site, folder / "distinct")
    async with hpc.adapter() as adapter:
        wanted = many(hpc, JOBS)
        took = await timed(submit(adapter, wanted))
        took_distinct = took
        report.figure(f"{JOBS} distinct jobs, staged, over SSH", took, "s")
        report.figure("  beside the loop", took / loop, "x", 2.5)
        report.figure("  authentications for them", adapter.connection.opened, "", 1)
    drain(site)
    hpc = Hpc(site, folder / "array")
    async with hpc.adapter() as adapter:
        job = hpc.job("array", command=["sleep", "600"], array={"indices": f"0-{JOBS - 1}"})
        report.figure(f"{JOBS} jobs as an array", await timed(submit(adapter, [job])), "s", 3)
    drain(site)
    hpc = Hpc(site, folder / "coalesced")
    async with hpc.adapter() as adapter:
        wanted = many(hpc, JOBS, coalesce=True)
        took = await timed(submit(adapter, wanted))
        report.figure(f"{JOBS} jobs of one shape, coalesced", took, "s")
    drain(site)
    each = exec_each(site, SHORT) / SHORT
    report.figure("one exec a job over one SSH connection, each", each * 1000, "ms")
    report.figure("  beside ours over SSH", each / (took_distinct / JOBS), "x faster")
    if each / (took_distinct / JOBS) < 3:
        report.missed.append("three times faster than one exec a job")
    peers(site, folder, report, loop / JOBS)


def exec_each(site: Cluster, count: int) -> float:
    """What most do: one command a job through a multiplexed connection; seconds."""
    to, socket = site.login, site.layout.folder / "mux"
    ssh = ["ssh", "-F", "none", "-p", str(to.port), "-i", str(to.key), "-o", "BatchMode=yes"]
    ssh += ["-o", f"UserKnownHostsFile={to.known_hosts}", "-o", f"ControlPath={socket}"]
    whom = f"{to.user}@{to.host}"
    master = subprocess.Popen([*ssh, "-M", "-N", whom], stdin=subprocess.DEVNULL)
    try:
        site.await_state(socket.exists, "a shared connection")
        started = time.perf_counter()
        for _ in range(count):
            command = f"sbatch --parsable --hold -o /dev/null {to.root}/bare.sh"
            subprocess.run([*ssh, whom, command], check=True, capture_output=True, timeout=60)
        return time.perf_counter() - started
    finally:
        master.terminate()
        master.wait(10)
        drain(site)


def peers(site: Cluster, folder: Path, report: Report, bare: float) -> None:
    """submitit and psij-python on the same cluster, on the login node itself: they have no SSH."""
    for name, text in PEERS.items():
        where = folder / name
        where.mkdir()
        where.chmod(0o777)
        (where / "run.py").write_text(text)
        folder.chmod(0o755)
        environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
        done = subprocess.run(
            [sys.executable, str(where / "run.py"), str(SHORT), str(where)],
            env={**site.environment, **environment, "HOME": str(where)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode:
            print(f"       {name}: did not run: {done.stderr.strip().splitlines()[-1:]}")
            continue
        each = float(done.stdout.split()[-1]) / SHORT
        report.figure(f"{name}, on the login node, each", each * 1000, "ms")
        report.figure("  beside the bare loop", each / bare, "x")
        site.admin("scancel", "--user", "root", check=False)


PEERS = {
    "submitit": """\
import sys, time
import submitit
executor = submitit.SlurmExecutor(folder=sys.argv[2] + "/logs")
executor.update_parameters(time=10, job_name="submitit", setup=None)
started = time.perf_counter()
jobs = [executor.submit(time.sleep, 600) for _ in range(int(sys.argv[1]))]
print(time.perf_counter() - started)
""",
    "psij": """\
import datetime, sys, time
from psij import Job, JobAttributes, JobExecutor, JobSpec
executor = JobExecutor.get_instance("slurm")
started = time.perf_counter()
for _ in range(int(sys.argv[1])):
    attributes = JobAttributes(duration=datetime.timedelta(minutes=10))
    executor.submit(Job(JobSpec(name="psij", executable="/bin/sleep", arguments=["600"],
                                attributes=attributes)))
print(time.perf_counter() - started, flush=True)
import os
os._exit(0)
""",
}


async def looks(site: Cluster, folder: Path, report: Report) -> None:
    """What one look costs the controller, at 10, 1,000 and 5,000 jobs, and this process."""
    hpc = Hpc(site, folder / "looks", limits={"poll": "1s", "idlePoll": "1s", "batch": 500})
    async with hpc.adapter() as adapter:
        ours: list[tuple[Owner, External]] = []
        jobs = many(hpc, 5 * JOBS, coalesce=True)
        for count in (10, JOBS, 5 * JOBS):
            ours += await submit(adapter, jobs[len(ours) : count])
            await adapter.observe_many(ours)
            site.sdiag_reset()
            before = adapter._runs.watch.looks
            while adapter._runs.watch.looks < before + 3:
                await adapter.observe_many(ours)
                await asyncio.sleep(0.1)
            taken = adapter._runs.watch.looks - before
            asked = site.sdiag()
            mine = {name: n for name, n in asked.items() if name.startswith("REQUEST_JOB")}
            report.figure(
                f"controller RPCs a look at {count} jobs", sum(mine.values()) / taken, "", 1
            )
    drain(site)


async def tick(site: Cluster, folder: Path, report: Report) -> None:
    """What this process spends on one look at 10,000 jobs, each with a line of its own."""
    hpc = Hpc(site, folder / "tick", limits={"poll": "1s", "idlePoll": "1s", "batch": 500})
    async with hpc.adapter() as adapter:
        ours = await submit(adapter, many(hpc, TRACKED))
        await adapter.observe_many(ours)
        spent: list[float] = []
        while len(spent) < 5:
            before, looks = time.process_time(), adapter._runs.watch.looks
            await adapter.observe_many(ours)
            if adapter._runs.watch.looks > looks:
                spent.append((time.process_time() - before) * 1000)
            await asyncio.sleep(0.2)
        report.figure(f"CPU of a look at {TRACKED} jobs", statistics.median(spent), "ms", 150)
    drain(site)


async def terminal(site: Cluster, folder: Path, report: Report) -> None:
    """How long after its end a job is seen to have ended."""
    poll = 2.0
    hpc = Hpc(site, folder / "ends", limits={"poll": f"{poll:g}s", "idlePoll": f"{poll:g}s"})
    async with hpc.adapter() as adapter:
        wanted = many(hpc, 100, "sleep 1; date +%s.%N > end", partition="cpu")
        ours = await submit(adapter, wanted)
        seen: dict[External, float] = {}
        while len(seen) < len(ours):
            answers = await adapter.observe_many([pair for pair in ours if pair[1] not in seen])
            for external, answer in answers.items():
                if isinstance(answer, Found) and answer.state is not State.PROGRESSING:
                    seen[external] = time.time()
            await asyncio.sleep(0.1)
        late = []
        for owner, external in ours:
            end = float((hpc.run_folder(owner, external) / "work/end").read_text())
            late.append(seen[external] - end)
        p95 = statistics.quantiles(late, n=20)[-1]
        report.figure(f"end seen, p95 of {len(late)}, poll {poll:g} s", p95, "s", poll + 2)


def main() -> None:
    """Measure, and say what was missed."""
    report = Report()
    folder = Path(tempfile.mkdtemp(prefix="wl-bench-"))
    try:
        with cluster(Site(max_array_size=10_001, nodes=2)) as site:
            asyncio.run(submissions(site, folder, report))
            asyncio.run(looks(site, folder, report))
            asyncio.run(terminal(site, folder, report))
            asyncio.run(tick(site, folder, report))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if report.missed:
        print("missed: " + "; ".join(report.missed))


if __name__ == "__main__":
    main()
