"""Windlass under changes: swaps, memory, a start, a light model beside a heavy one."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.serving.contenders import CONTENDERS, Contender
from bench.serving.load import Cell, Running, wrk
from bench.serving.machine import SERVER
from bench.serving.pairs import Gate, Pair, Side, in_turns
from bench.serving.payloads import Payload
from rig.serving import Serving, digest_of_file

Payloads = Mapping[str, Payload]
_SWAP = 0.5
"""Seconds between two swaps."""
_SWAPS = 50
_STARTS = 5
_PLAIN = next(each for each in CONTENDERS if each.name == "Windlass")
_HEAVY = Contender("heavy", (), path="/v2/models/heavy/infer")


@contextmanager
def _serving(cores: set[int]) -> Iterator[Serving]:
    with tempfile.TemporaryDirectory() as name, Serving(Path(name) / "state") as serving:
        for thread in Path(f"/proc/{serving.process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)
        yield serving


def _place(serving: Serving) -> Running:
    return Running(serving.process.pid, serving.port)


def swap(payloads: Payloads, rounds: int) -> list[Gate]:
    """Slices with and without swaps in turn."""
    payload = payloads["small"]
    made = 0
    with _serving({SERVER}) as serving:
        serving.deploy("m", payload.model)
        wrk(_PLAIN, payload, _place(serving), 64, 1)

        def swapping(seconds: float) -> Cell:
            stop = threading.Event()

            def swap() -> None:
                nonlocal made
                while not stop.wait(_SWAP):
                    made += 1
                    digest = f"sha256:{made:064x}"
                    assert serving.put("m", payload.model, digest=digest).status_code == 202

            thread = threading.Thread(target=swap)
            thread.start()
            try:
                return wrk(_PLAIN, payload, _place(serving), 64, seconds)
            finally:
                stop.set()
                thread.join()
                serving.settle("m")

        steady = partial(wrk, _PLAIN, payload, _place(serving), 64)
        ours, theirs = Side("swaps", swapping, 2.0), Side("no swaps", steady, 2.0)
        pair = Pair(
            "a swap every half second: rate over the rate without", ours, theirs, ">=", 0.95
        )
        in_turns([pair], rounds)
    failures = float(sum(cell.bad for cell in ours.cells))
    every = f"a swap every half second ({made} in all): failed requests"
    return [Gate(every, "<=", 0, (failures,)), pair.gate()]


def memory(payloads: Payloads, rounds: int) -> list[Gate]:
    """One load of 270 MB, then fifty in its place, with requests going on."""
    payload = payloads["deep"]
    with _serving({SERVER}) as serving:
        serving.deploy("m", payload.model)
        for _ in range(3):
            assert serving.infer("m", payload.json).status_code == 200
        time.sleep(1)
        once = _resident(serving)
        for number in range(_SWAPS):
            digest = f"sha256:{number:064x}"
            assert serving.put("m", payload.model, digest=digest).status_code == 202
            assert serving.settle("m")["digest"] == digest
            assert serving.infer("m", payload.json).status_code == 200
        time.sleep(1)
        after = _resident(serving)
    print(f"memory: {once} KiB after one load, {after} KiB after {_SWAPS} swaps", flush=True)
    return [Gate("memory after 50 swaps of 270 MB over one load", "<=", 1.2, (after / once,))]


def _resident(serving: Serving) -> int:
    status = Path(f"/proc/{serving.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)


def start(payloads: Payloads, rounds: int) -> list[Gate]:
    """With the order to serve as soon as the process listens, as the adapter gives it."""
    payload = payloads["small"]
    times = []
    digest = digest_of_file(payload.model)
    for _ in range(_STARTS):
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as name, Serving(Path(name) / "state") as serving:
            assert serving.put("m", payload.model, digest=digest).status_code == 202
            while serving.infer("m", payload.json).status_code != 200:
                time.sleep(0.005)
            times.append(time.perf_counter() - begun)
    return [Gate("start to first answer, seconds", "<=", 1.0, tuple(times))]


def light(payloads: Payloads, rounds: int) -> list[Gate]:
    """A light model while a heavy one is saturated: on two cores, and all on one."""
    two = _beside(payloads, {0, 1}, rounds)
    one = _beside(payloads, {SERVER}, rounds)
    text = "a light model beside a saturated heavy one: p99, ms"
    return [
        Gate(f"{text}; the server has both cores, the clients too", "<=", 3.0, two),
        Gate(f"{text}; the server has one core", "<=", 3.0, one),
    ]


def _beside(payloads: Payloads, cores: set[int], rounds: int) -> tuple[float, ...]:
    """p99 of each slice."""
    small, heavy = payloads["small"], payloads["conv"]
    found = []
    with _serving(cores) as serving:
        serving.deploy("m", small.model)
        serving.deploy("heavy", heavy.model)
        place = _place(serving)
        wrk(_PLAIN, small, place, 8, 1)
        for turn in range(rounds):
            alone = wrk(_PLAIN, small, place, 1, 2)
            with _saturated(lambda: wrk(_HEAVY, heavy, place, 8, 4)) as rates:
                beside = wrk(_PLAIN, small, place, 1, 2)
            assert not beside.bad, beside
            found.append(beside.p99)
            print(f"[{turn}] light alone on {len(cores)}  {alone}", flush=True)
            print(f"[{turn}] beside {rates[0].rate:5.1f}/s heavy {beside}", flush=True)
    return tuple(found)


@contextmanager
def _saturated(load: Callable[[], Cell]) -> Iterator[list[Cell]]:
    """Under that load; what came of it is there at the end."""
    cells: list[Cell] = []
    thread = threading.Thread(target=lambda: cells.append(load()))
    thread.start()
    time.sleep(1)
    yield cells
    thread.join()


OPERATIONS: Mapping[str, Callable[[Payloads, int], list[Gate]]] = {
    "swap": swap,
    "light": light,
    "memory": memory,
    "start": start,
}
