"""From a spec message to a running Job, in milliseconds: ``python tests/bench/bench_starts.py``.

Beside Celery's ``delay()`` to the first instruction of its task, on one broker with the same
payload, one at a time. Celery out of the box promises less (it acknowledges before it works, its
queue is in memory), so that it is measured a second time with promises like ours: a quorum queue,
confirmed, acknowledged late. What the disk, the broker and a start alone take is measured too, as
far apart as the messages are: what has slept is slower than what goes on. Our time is taken apart
hop by hop.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ParamSpec, TypeVar
from unittest.mock import patch

import aio_pika
import structlog
from pydantic import JsonValue

from bench.peers import python_with
from rig.bus import bus_daemon
from rig.project import Project
from rig.rabbitmq import Broker, running_broker
from windlass.bus.address import Address
from windlass.bus.intake import SpecIntake
from windlass.bus.publishing import Publisher, Said, connected
from windlass.reconciler import Reconciler
from windlass.store.sqlite import SqliteStore
from windlass.targets import OpenTarget
from windlass_adapters.local import LocalAdapter
from windlass_adapters.local.starting import Starter
from windlass_schemas import Key

STARTS = int(os.environ.get("STARTS", "40"))
WARM = 5
PAUSE = 0.15
"""Seconds between two, in which the one before ends and is written down."""
LOOK = 0.005
RUNS = "default/local/runs"
BOUND = 60.0
COMMAND = ["/bin/date", "+%s.%N"]
SCRIPT = "import time\nprint(repr(time.time()), flush=True)\n"
CELERY = """
import time
from celery import Celery
from kombu import Queue
app = Celery("bench", broker={url!r})
app.conf.update(worker_prefetch_multiplier=1, task_ignore_result=True)
if {durable!r}:
    app.conf.update(
        task_acks_late=True,
        broker_transport_options={{"confirm_publish": True}},
        task_queues=[Queue("celery", queue_arguments={{"x-queue-type": "quorum"}})],
        worker_detect_quorum_queues=True,
    )
@app.task
def start(spec, path):
    with open(path, "w") as file:
        file.write(repr(time.time()))
"""
CELERY_DELAYS = """
import importlib, json, sys, time
from pathlib import Path
name, count, pause, spec = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
tasks = importlib.import_module(name)
for number in range(count):
    path = Path(f"{name}-{number}")
    began = time.time()
    tasks.start.delay(spec, str(path))
    while not path.exists() or not path.read_text():
        time.sleep(0.005)
    print(float(path.read_text()) - began)
    time.sleep(pause)
"""

P = ParamSpec("P")
T = TypeVar("T")


def document(name: str, spec: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {
        "apiVersion": "windlass/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": dict(spec),
    }


def stamp(path: Path) -> float:
    """Wait for the time that a program writes first thing."""
    deadline = time.monotonic() + BOUND
    while True:
        with suppress(OSError, ValueError):
            return float(path.read_text())
        assert time.monotonic() < deadline, f"nothing in {path}"
        time.sleep(LOOK)


def deciles(seconds: list[float]) -> list[float]:
    """The fastest tenth, the median and the slowest tenth, in milliseconds."""
    taken = sorted(seconds)
    return [taken[int(len(taken) * share)] * 1e3 for share in (0.1, 0.5, 0.9)]


def spread(seconds: list[float]) -> str:
    few, half, most = deciles(seconds)
    return f"p10 {few:6.2f} ms, p50 {half:6.2f} ms, p90 {most:6.2f} ms"


def celery_starts(url: str, folder: Path, *, durable: bool) -> list[float]:
    """Seconds from ``delay()`` to the first line of the task."""
    python = str(python_with("celery"))
    name = f"benchtasks{int(durable)}"
    (folder / f"{name}.py").write_text(CELERY.format(url=url, durable=durable))
    with (folder / f"{name}.log").open("wb") as log:
        worker = subprocess.Popen(
            [python, "-m", "celery", "-A", name, "worker", "-c", "2", "-l", "ERROR"],
            cwd=folder,
            stdout=log,
            stderr=log,
        )
    try:
        spec = json.dumps(document("x", {"command": list(COMMAND)}))
        delays = subprocess.run(
            [python, "-c", CELERY_DELAYS, name, str(STARTS + WARM), str(PAUSE), spec],
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            timeout=BOUND + (STARTS + WARM) * 2,
            check=True,
        )
        return [float(line) for line in delays.stdout.split()][WARM:]
    finally:
        worker.terminate()
        worker.wait(30)


def windlass_starts(url: str, folder: Path, spec: Mapping[str, JsonValue]) -> list[float]:
    """Seconds from publishing a Job to the first instruction of its program, in ``windlass up``."""
    specs = folder / "empty"
    specs.mkdir(parents=True)
    (specs / "README").write_text("specs come by messages")
    project = Project(folder, specs)
    project.environment["WINDLASS_AMQP_URL"] = url
    runs = project.state / "targets" / RUNS
    project.up()
    try:
        project.until(lambda: "connected to" in json.dumps(project.ask("/readyz")), "up", 60)
        with asyncio.Runner() as runner:
            opened = connected(Address(url), "/bench")
            publisher = runner.run(opened.__aenter__())
            taken = []
            for number in range(STARTS + WARM):
                said = job(f"job-{number}", spec)
                began = time.time()
                runner.run(publisher.publish(said))
                taken.append(stamp(output(runs, f"job-{number}")) - began)
                runner.run(asyncio.sleep(PAUSE))
            runner.run(opened.__aexit__(None, None, None))
        return taken[WARM:]
    finally:
        project.close()


def job(name: str, spec: Mapping[str, JsonValue]) -> Said:
    files = {"main.py": SCRIPT.encode()} if "entrypoint" in spec else {}
    return Said(Key("Job", "default", name), document(name, spec), files)


def output(runs: Path, name: str) -> Path:
    """The standard output of the only run of a Job, which may be yet to come."""
    deadline = time.monotonic() + BOUND
    while time.monotonic() < deadline:
        if found := list(runs.glob(f"default.{name}-*/stdout.log")):
            return found[0]
        time.sleep(LOOK)
    raise AssertionError(f"{name} does not start")


class Trace:
    """When each hop was reached, for one Job after the other."""

    def __init__(self) -> None:
        self.reached: dict[str, float] = {}

    def around(
        self, before: str, work: Callable[P, Awaitable[T]], after: str
    ) -> Callable[P, Awaitable[T]]:
        @functools.wraps(work)
        async def traced(*args: P.args, **kwargs: P.kwargs) -> T:
            self.mark(before)
            result = await work(*args, **kwargs)
            self.mark(after)
            return result

        return traced

    def mark(self, hop: str) -> None:
        """The first time after the one before; passes of earlier Jobs go on meanwhile."""
        names = [name for name, _ in HOPS]
        ready = hop in names and (
            names.index(hop) < 2 or names[names.index(hop) - 1] in self.reached
        )
        if ready:
            self.reached.setdefault(hop, time.time())

    def take(self) -> dict[str, float]:
        taken, self.reached = self.reached, {}
        return taken


HOPS = (
    ("confirmed", "(the broker has confirmed the message to its publisher)"),
    ("arrived", "published, written by the quorum queue, delivered"),
    ("read", "loaded and checked"),
    ("heard", "written to the store; the disk has it later, before the acknowledgement"),
    ("pass", "dependents looked up, taken by a worker"),
    ("intending", "object read, references, target, plan"),
    ("intended", "intent written to the store"),
    ("applying", "looked up in the backend: not there"),
    ("starting", "run folder put in place"),
    ("stamp", "order sent; claim, exec, first instruction"),
)


@contextmanager
def traced(trace: Trace) -> Iterator[None]:
    ask = Starter.ask

    def asked(self: Starter, runner: socket.socket, run: Path, given: Mapping[str, object]) -> bool:
        trace.mark("starting")
        return ask(self, runner, run, given)

    with (
        patch.object(SpecIntake, "_take", trace.around("arrived", SpecIntake._take, "")),
        patch.object(SpecIntake, "_read", trace.around("", SpecIntake._read, "read")),
        patch.object(SqliteStore, "receive", trace.around("", SqliteStore.receive, "heard")),
        patch.object(Reconciler, "reconcile", trace.around("pass", Reconciler.reconcile, "")),
        patch.object(
            SqliteStore, "intend", trace.around("intending", SqliteStore.intend, "intended")
        ),
        patch.object(OpenTarget, "apply", trace.around("applying", OpenTarget.apply, "")),
        patch.object(Publisher, "publish", trace.around("", Publisher.publish, "confirmed")),
        patch.object(Starter, "ask", asked),
    ):
        yield


async def take_apart(url: str, folder: Path) -> None:
    """The same in one process with this one: fastest tenth and median between the hops."""
    trace, rounds = Trace(), []
    with traced(trace):
        async with bus_daemon(folder, url, adapter=LocalAdapter) as daemon:
            await daemon.until_up()
            async with connected(Address(url), "/bench") as publisher:
                for number in range(STARTS + WARM):
                    name = f"job-{number}"
                    trace.take()
                    began = time.time()
                    await publisher.publish(job(name, {"command": list(COMMAND)}))
                    path = await asyncio.to_thread(output, folder / RUNS, name)
                    at = await asyncio.to_thread(stamp, path)
                    await asyncio.sleep(PAUSE)
                    rounds.append({"began": began, **trace.take(), "stamp": at})
    del rounds[:WARM]
    before = "began"
    for hop, what in HOPS:
        few, half = deciles([each[hop] - each[before] for each in rounds])[:2]
        print(f"  {few:6.2f} {half:6.2f} ms  {what}")
        before = before if what.startswith("(") else hop
    whole = [each["stamp"] - each["began"] for each in rounds]
    print(f"  in all, in one process with the publisher: {spread(whole)}")


async def queue_latency(url: str, kind: str) -> list[float]:
    """Seconds from a plain publisher to a plain consumer."""
    arrived: asyncio.Queue[float] = asyncio.Queue()

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        arrived.put_nowait(time.perf_counter())
        await message.ack()

    connection, other = await aio_pika.connect(url), await aio_pika.connect(url)
    async with connection, other:
        channel = await connection.channel()
        queue = await channel.declare_queue(
            f"bench-{kind}", durable=True, arguments={"x-queue-type": kind}
        )
        await queue.consume(take)
        publishing = await other.channel()
        taken = []
        body = json.dumps(document("x", {"command": list(COMMAND)})).encode()
        for _ in range(STARTS + WARM):
            began = time.perf_counter()
            message = aio_pika.Message(body, delivery_mode=2)
            await publishing.default_exchange.publish(message, queue.name)
            taken.append(await arrived.get() - began)
            await asyncio.sleep(PAUSE)
    return taken[WARM:]


def bare_starts(folder: Path) -> list[float]:
    """Seconds to the first instruction of the same command, started by a plain program."""
    path, taken = folder / "bare", []
    for _ in range(STARTS + WARM):
        with path.open("wb") as file:
            time.sleep(PAUSE)
            began = time.time()
            to_file = [(os.POSIX_SPAWN_DUP2, file.fileno(), 1)]
            pid = os.posix_spawn(COMMAND[0], COMMAND, {}, file_actions=to_file)
        os.waitpid(pid, 0)
        taken.append(float(path.read_text()) - began)
    return taken[WARM:]


def sync_cost(folder: Path) -> list[float]:
    """Seconds until the disk has 4 KiB more of a file: what one commit waits for at least."""
    taken = []
    with (folder / "synced").open("wb") as file:
        for _ in range(STARTS):
            time.sleep(PAUSE)
            file.write(b"x" * 4096)
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    return taken


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with running_broker() as broker, tempfile.TemporaryDirectory() as name:
        show(broker, Path(name))


def show(broker: Broker, folder: Path) -> None:
    def url() -> str:
        return broker.url(broker.vhost())

    print(f"the disk has 4 KiB more of a file: {spread(sync_cost(folder))}")
    for kind in ("classic", "quorum"):
        print(f"plain publisher to plain consumer, {kind} queue:"
              f" {spread(asyncio.run(queue_latency(url(), kind)))}")  # fmt: skip
    print(f"plain program to the command's first instruction: {spread(bare_starts(folder))}")
    early = celery_starts(url(), folder, durable=False)
    print(f"Celery, as it comes (classic queue, early ack): {spread(early)}")
    late = celery_starts(url(), folder, durable=True)
    print(f"Celery, quorum queue, confirmed, acks_late:     {spread(late)}")
    ours = windlass_starts(url(), folder / "w", {"command": list(COMMAND)})
    print(f"spec message -> local Job's command runs:       {spread(ours)}")
    script = windlass_starts(url(), folder / "s", {"entrypoint": "main.py"})
    print(f"spec message -> local Job's script runs:        {spread(script)}")
    mine = statistics.median(ours)
    print(
        f"ratio to Celery as it comes {mine / statistics.median(early):.2f},"
        f" with promises like ours {mine / statistics.median(late):.2f} (to reach: 0.5 or less)"
    )
    print("where our time goes, fastest tenth and median:")
    asyncio.run(take_apart(url(), folder / "apart"))


if __name__ == "__main__":
    main()
