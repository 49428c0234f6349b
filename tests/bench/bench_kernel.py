"""What the kernel costs with 100 to 10,000 objects. Prints value, goal and ok or missed.

Run by ``make bench``, with the real store, loader, git source and controller, and a backend in
memory whose latency is printed. Each part runs in a process of its own, so that memory and
processor time are its own. Rewrites the plot in ``docs/scale.svg``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from unittest.mock import patch

import structlog

from bench.plot import Series, plot
from gitrepo import GitRepo
from rig.fleet import FixedSource, Fleet, FleetBackend, fleet, fleet_adapter
from windlass.app import GARBAGE, TURN, live
from windlass.checks import adapter_check
from windlass.priority import Priority
from windlass.registry import Registry
from windlass.settings import Settings
from windlass.sources.base import Source
from windlass.sources.namedfiles import hash_only
from windlass.sources.opening import open_source
from windlass.sources.readcache import ReadCache
from windlass.store.base import Snapshot
from windlass_adapters.testing.documents import document
from windlass_schemas import Key

ROOT = Path(__file__).resolve().parents[2]
SIZES = (100, 300, 1_000, 3_000, 10_000)
HELD = "held.pickle"
"""What the backend held when a process ended, for the next one."""
RESYNC = 300.0
"""Seconds between two looks at a settled object, for the idle goals."""
EDITS = 100
SPEC = {"source": {"url": "https://models.example.org/m.onnx"}, "digest": "sha256:" + "0" * 64}
TEXT = """\
apiVersion: windlass/v1
kind: Model
metadata:
  name: {name}
spec:
  source:
    url: https://models.example.org/m-{version}.onnx
  digest: sha256:{zeros}
"""

Found = dict[str, float]
Part = Callable[[Path], Coroutine[None, None, Found]]


def resident() -> float:
    """Resident memory of this process in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def percentile(values: list[float], share: float) -> float:
    """The value that so many of them do not exceed."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def key(number: int) -> Key:
    return Key("Model", "default", f"m{number:05}")


async def grow(
    folder: Path, count: int, then: Callable[[Fleet], Coroutine[None, None, Found]]
) -> Found:
    """All specs are new at once; until each one is Ready."""
    documents = tuple(document("Model", key(i).name, SPEC) for i in range(count))
    begin, used = time.perf_counter(), time.process_time()
    source = FixedSource(Snapshot("folder:/specs", "r1", "ann", documents))
    async with fleet(folder, source) as kernel:
        await kernel.until(lambda: kernel.ready() >= count, "all Ready")
        found = {
            "seconds": time.perf_counter() - begin,
            "processor": time.process_time() - used,
            "resident": resident(),
        }
        await kernel.idle()
        return found | await then(kernel)


async def nothing(_kernel: Fleet) -> Found:
    return {}


async def look_again(kernel: Fleet) -> Found:
    """A full resync: what it writes, what it costs, and how long an edit waits behind it."""
    while await kernel.store.unpublished(1):  # the events of the beginning are on their way
        await asyncio.sleep(0.05)
    everything = [key(i) for i in range(kernel.ready())]
    writes, used = kernel.store.writes, time.process_time()
    kernel.controller.queue.add_all(everything, Priority.RESYNC)
    await kernel.idle()
    used = time.process_time() - used
    written = kernel.store.writes - writes
    kernel.controller.queue.add_all(everything, Priority.RESYNC)
    waits = []
    for _ in range(EDITS):
        edited = random.choice(everything)
        seen, asked = len(kernel.passes), time.perf_counter()
        kernel.controller.enqueue([edited])
        await kernel.until(
            lambda seen=seen, edited=edited: any(k == edited for k, _ in kernel.passes[seen:]),  # type: ignore[misc]
            "the edit is worked on",
        )
        begun = next(at for k, at in kernel.passes[seen:] if k == edited)
        waits.append(begun - asked)
    behind = len(kernel.controller.queue)
    await kernel.idle()
    return {
        "idle writes": float(written),
        "idle share": used / RESYNC * 100,
        "edit wait": percentile(waits, 0.99),
        "behind": float(behind),
    }


async def late(folder: Path) -> Found:
    """64 workers and a backend that takes 100 ms: three calls make an object Ready."""
    count, workers, latency = 1_280, 64, 0.1
    documents = tuple(document("Model", key(i).name, SPEC) for i in range(count))
    source = FixedSource(Snapshot("folder:/specs", "r1", "ann", documents))
    backend = FleetBackend(latency=latency)
    async with fleet(folder, source, backend, workers=workers, lanes=workers) as kernel:
        await kernel.until(lambda: bool(backend.first_call), "the first call")
        begin = time.perf_counter()
        await kernel.until(lambda: kernel.ready() >= count, "all Ready", pause=0.025)
        took = time.perf_counter() - begin
        await kernel.idle()
        begin = time.perf_counter()
        kernel.controller.queue.add_all([key(i) for i in range(count)], Priority.RESYNC)
        await kernel.idle()
        again = time.perf_counter() - begin
    rounds = count / workers * latency
    return {"of ideal": 3 * rounds / took * 100, "of ideal, looking": rounds / again * 100}


def write_specs(repository: GitRepo, count: int) -> None:
    for i in range(count):
        write_spec(repository, i, 0)
    repository.commit("All of them")


def write_spec(repository: GitRepo, number: int, version: int) -> None:
    name = key(number).name
    text = TEXT.format(name=name, version=version, zeros="0" * 64)
    repository.write(f"{number % 100:02}/{name}.yaml", text)


async def follow(folder: Path, registry: Registry) -> Source:
    return await open_source(
        folder,
        worktree=False,
        keep=hash_only,
        check=adapter_check(registry),
        cache=ReadCache(folder.parent / "read.db", registry.code()),
    )


async def commits(folder: Path, count: int, edits: int) -> Found:
    """One-line commits in a real repository: to the first call, to Ready, and what was touched."""
    repository = GitRepo(folder / "specs")
    await asyncio.to_thread(write_specs, repository, count)
    backend = FleetBackend()
    delays, readies, touched = [], [], set[int]()
    source = await follow(repository.path, Registry({"local": fleet_adapter(backend)}))
    async with fleet(folder, source, backend) as kernel:
        await kernel.until(lambda: kernel.ready() >= count, "all Ready")
        await kernel.idle()
        for edit in range(1, edits + 1):
            number = random.randrange(count)
            write_spec(repository, number, edit)
            await asyncio.sleep(random.uniform(0.0, 0.3))  # commits come when they come
            backend.first_call.clear()
            seen, ready = len(kernel.passes), kernel.ready()
            await asyncio.to_thread(repository.commit, "One line")
            committed = time.perf_counter()
            await kernel.until(lambda number=number: key(number) in backend.first_call, "a call")  # type: ignore[misc]
            delays.append(max(backend.first_call[key(number)] - committed, 0.0))
            await kernel.until(lambda ready=ready: kernel.ready() > ready, "Ready")  # type: ignore[misc]
            readies.append(time.perf_counter() - committed)
            await kernel.idle()
            touched.add(len({k for k, _ in kernel.passes[seen:]}))
    found = {
        "first call p50": percentile(delays, 0.5),
        "first call p99": percentile(delays, 0.99),
        "ready": max(readies),
        "touched": float(max(touched)),
    }
    (folder / HELD).write_bytes(pickle.dumps(backend.held))
    write_spec(repository, 0, 999)
    repository.commit("While the daemon was away")
    begun = time.time()
    return found | {"restart": measure("restart", str(folder))["served"] - begun}


async def restart(folder: Path) -> Found:
    """A whole daemon on what an earlier process has left: when the edit has reached the backend."""
    backend = FleetBackend(held=pickle.loads((folder / HELD).read_bytes()))
    registry = Registry({"local": fleet_adapter(backend)})
    settings = Settings(state=folder, api_port=0)
    with patch("windlass.app.Registry", lambda: registry):
        daemon = asyncio.create_task(live(folder / "specs", False, settings))
        async with asyncio.timeout(120):
            while not backend.calls["apply"] and not daemon.done():
                await asyncio.sleep(0.005)
        served = time.time()
        os.kill(os.getpid(), signal.SIGTERM)
        await daemon
    return {"served": served}


PARTS: Mapping[str, Part] = {
    **{f"grow-{n}": (lambda folder, n=n: grow(folder, n, nothing)) for n in SIZES[:-1]},  # type: ignore[misc]
    "grow-10000": lambda folder: grow(folder, 10_000, look_again),
    "late": late,
    "commits-100": lambda folder: commits(folder, 100, 60),
    "commits-10000": lambda folder: commits(folder, 10_000, 12),
    "restart": restart,
}


def measure(part: str, *more: str) -> Found:
    """Run one part in a process of its own."""
    command = [sys.executable, __file__, part, *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=900, check=True)
    found: Found = json.loads(done.stdout)
    return found


def say(what: str, value: float, unit: str, goal: float, *, least: bool = False) -> None:
    """One line of the table."""
    met = value >= goal if least else value <= goal
    sign = ">=" if least else "<="
    print(f"{what:<66} {value:9.2f} {unit:<4} {sign} {goal:<6g} {'ok' if met else 'missed'}")
    sys.stdout.flush()


def tell_growth() -> None:
    """From 100 to 10,000 objects, and the plot."""
    found = {size: measure(f"grow-{size}") for size in SIZES}
    thousand, most = found[1_000], found[10_000]
    say("1,000 new specs, all Ready (latency 0)", thousand["seconds"], "s", 10)
    say("10,000 new specs, all Ready (latency 0)", most["seconds"], "s", 120)
    say("resident memory at 10,000 objects, backend included", most["resident"], "MiB", 300)
    more = (most["resident"] - thousand["resident"]) / 9_000 * 1024
    say("resident memory for each object more", more, "KiB", 20)
    say("rows written in a resync of 10,000 unchanged objects", most["idle writes"], "", 0)
    say("one core, resyncing 10,000 objects every 5 minutes", most["idle share"], "%", 5)
    say(f"wait of an edit in a full resync, p99 of {EDITS}", most["edit wait"], "s", 1)
    plot(
        ROOT / "docs/scale.svg",
        "Cost of making new objects Ready (latency 0)",
        [
            Series("seconds until all are Ready", {n: f["seconds"] for n, f in found.items()}),
            Series("processor seconds", {n: f["processor"] for n, f in found.items()}),
            Series("resident MiB", {n: f["resident"] for n, f in found.items()}),
        ],
    )


def main() -> None:
    """The whole table."""
    # A start is not the first one: what Python has compiled is there, unless it is told to forget.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    tell_growth()
    small, large, far = (measure(p) for p in ("commits-100", "commits-10000", "late"))
    say(
        "commit to the first backend call, p50 of 60 (100 specs)", small["first call p50"], "s", 0.3
    )
    say("commit to the first backend call, p99 of 60 (100 specs)", small["first call p99"], "s", 1)
    say("one line of 10,000 specs: commit to Ready, worst of 12", large["ready"], "s", 1)
    say("one line of 10,000 specs: objects reconciled", large["touched"], "", 1)
    say("commit to the first backend call, p50 of 12 (10,000)", large["first call p50"], "s", 0.3)
    say("commit to the first backend call, worst of 12 (10,000)", large["first call p99"], "s", 1)
    say("restart with 10,000 objects: start of Python to first edit", large["restart"], "s", 2)
    say("64 workers, 100 ms: of the ideal, new objects", far["of ideal"], "%", 90, least=True)
    say(
        "64 workers, 100 ms: of the ideal, looking again",
        far["of ideal, looking"],
        "%",
        90,
        least=True,
    )
    print("Flux publishes 253 s for 1,000 Kustomizations; its work for each object is heavier.")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        gc.set_threshold(*GARBAGE)  # as the daemon does
        sys.setswitchinterval(TURN)
        quiet = structlog.make_filtering_bound_logger(logging.ERROR)
        structlog.configure(wrapper_class=quiet)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(sys.argv[2] if len(sys.argv) > 2 else name)
            print(json.dumps(asyncio.run(PARTS[sys.argv[1]](folder))))
    else:
        main()
