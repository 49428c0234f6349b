"""How other people submit to a cluster: what `bench_slurm` measures Windlass beside.

Each makes a folder for each job and writes the job's own script there, as Windlass does, and none
waits for a disk. The loop on the login node is the least that Slurm's own program allows.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import asyncssh

from bench.slurm.spent import Spent, measured
from rig.slurm import Cluster

PEERS = ("submitit", "psij-python")


def loop(site: Cluster, count: int) -> Spent:
    """``for ...; do sbatch; done`` on the login node itself, one script for all."""
    script = site.here(site.login.root / "bare.sh")
    script.write_text("#!/bin/sh\nsleep 600\n")
    line = f"for i in $(seq {count}); do sbatch -o /dev/null {site.login.root}/bare.sh; done"
    with measured(site) as spent:
        site.run("sh", "-c", line, timeout=600)
    return spent


def _command(site: Cluster, number: int) -> tuple[str, bytes]:
    """One exec: the job's folder, its script from stdin, sbatch."""
    at = f"{site.login.root}/each/{number}"
    words = f"mkdir -p {at} && cat > {at}/run.sh && sbatch --parsable -o /dev/null {at}/run.sh"
    return words, f"#!/bin/sh\n# {number}\nsleep 600\n".encode()


@contextmanager
def _shared(site: Cluster) -> Iterator[list[str]]:
    """``ssh`` over a connection that is open already (ControlMaster)."""
    to, socket = site.login, site.layout.folder / "mux"
    ssh = ["ssh", "-F", "none", "-p", str(to.port), "-i", str(to.key), "-o", "BatchMode=yes"]
    ssh += ["-o", f"UserKnownHostsFile={to.known_hosts}", "-o", f"ControlPath={socket}"]
    whom = f"{to.user}@{to.host}"
    master = subprocess.Popen([*ssh, "-M", "-N", whom], stdin=subprocess.DEVNULL)
    try:
        site.await_state(socket.exists, "a shared connection")
        yield [*ssh, whom]
    finally:
        master.terminate()
        master.wait(10)


def openssh(site: Cluster, count: int, at_once: int, command: str = "") -> Spent:
    """One exec a job with OpenSSH's client over one connection.

    Args:
        command: Run that instead, to see what an exec alone costs.
    """

    def one(number: int) -> None:
        words, script = (command, b"") if command else _command(site, number)
        subprocess.run([*ssh, words], input=script, check=True, capture_output=True, timeout=120)

    with _shared(site) as ssh, ThreadPoolExecutor(at_once) as pool:
        one(count)
        with measured(site) as spent:
            list(pool.map(one, range(count)))
        return spent


async def in_process(site: Cluster, count: int, at_once: int) -> Spent:
    """One exec a job with asyncssh over one connection, no client process for each."""
    to = site.login
    allowed = asyncio.Semaphore(at_once)
    async with asyncssh.connect(
        to.host,
        to.port,
        username=to.user,
        client_keys=[str(to.key)],
        known_hosts=str(to.known_hosts),
        config=None,
    ) as connection:

        async def one(number: int) -> None:
            words, script = _command(site, number)
            async with allowed:
                await connection.run(words, input=script, encoding=None, check=True)

        await one(count)
        with measured(site) as spent:
            await asyncio.gather(*(one(number) for number in range(count)))
        return spent


def peer(site: Cluster, python: Path, name: str, folder: Path, count: int) -> Spent:
    """Submit with one of them on the login node itself, since they have no SSH.

    As the administrator: the cluster's user may not read this checkout. The time is without the
    start of Python, the CPU with it.
    """
    folder.mkdir(mode=0o700)
    (folder / "run.py").write_text(_PROGRAMS[name])
    with measured(site) as spent:
        done = subprocess.run(
            [*site.inside(), str(python), str(folder / "run.py"), str(count), str(folder)],
            env={**site.environment, "HOME": str(folder)},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip()[-500:]}")
    spent.wall = float(done.stdout.split()[-1])
    return spent


_PROGRAMS = {
    "submitit": """\
import sys, time
import submitit
executor = submitit.SlurmExecutor(folder=sys.argv[2] + "/logs")
executor.update_parameters(time=10, job_name="submitit", setup=None)
started = time.perf_counter()
jobs = [executor.submit(time.sleep, 600) for _ in range(int(sys.argv[1]))]
print(time.perf_counter() - started)
""",
    "psij-python": """\
import datetime, os, sys, time
from psij import Job, JobAttributes, JobExecutor, JobSpec
executor = JobExecutor.get_instance("slurm")
started = time.perf_counter()
for _ in range(int(sys.argv[1])):
    attributes = JobAttributes(duration=datetime.timedelta(minutes=10))
    executor.submit(Job(JobSpec(name="psij", executable="/bin/sleep", arguments=["600"],
                                attributes=attributes)))
print(time.perf_counter() - started, flush=True)
os._exit(0)
""",
}
