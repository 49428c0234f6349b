"""Windlass under changes: swaps, memory, a start, a light model beside a heavy one."""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.serving.contenders import CONTENDERS, Contender
from bench.serving.load import Running, wrk
from bench.serving.payloads import Payload
from rig.serving import Serving, digest_of_file

_SWAP = 0.5
"""Seconds between two swaps."""
_SWAPS = 50
_STARTS = 5
_PLAIN = next(each for each in CONTENDERS if each.name == "Windlass")


@dataclass(frozen=True)
class Operations:
    """What changes cost."""

    swap_rate: float
    """Rate with a swap every half second, as a share of the rate without."""
    swap_failures: int
    swaps: int
    memory: float
    """Resident memory after 50 swaps, as a multiple of that after one load."""
    start: float
    """Seconds from the start of the process to the first answer; the median."""
    light: float
    """Milliseconds: p99 of a light model while a heavy one is saturated."""
    light_alone: float
    heavy_rate: float


def measure_operations(payloads: dict[str, Payload], seconds: float) -> Operations:
    """Measure all of it."""
    small, deep, conv = payloads["small"], payloads["deep"], payloads["conv"]
    share, failures, swaps = _swaps(small, seconds)
    light, alone, rate = _light_beside_heavy(small, conv, seconds)
    return Operations(
        swap_rate=share,
        swap_failures=failures,
        swaps=swaps,
        memory=_memory(deep),
        start=_start(small),
        light=light,
        light_alone=alone,
        heavy_rate=rate,
    )


@contextmanager
def _serving(core: int = 0) -> Iterator[Serving]:
    with tempfile.TemporaryDirectory() as name, Serving(Path(name) / "state") as serving:
        for thread in Path(f"/proc/{serving.process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})
        yield serving


def _place(serving: Serving) -> Running:
    return Running(serving.process.pid, serving.port)


def _swaps(payload: Payload, seconds: float) -> tuple[float, int, int]:
    """Periods with and without swaps in turn; also failures, and how many swaps there were."""
    with _serving() as serving:
        serving.deploy("m", payload.model)
        wrk(_PLAIN, payload, _place(serving), 64, 1)
        rates: dict[bool, list[float]] = {True: [], False: []}
        failures, made, stop = 0, 0, threading.Event()

        def swap() -> None:
            nonlocal made
            while not stop.wait(_SWAP):
                made += 1
                digest = f"sha256:{made:064x}"
                assert serving.put("m", payload.model, digest=digest).status_code == 202

        for turn in range(4):
            stop.clear()
            thread = threading.Thread(target=swap)
            if turn % 2:
                thread.start()
            cell = wrk(_PLAIN, payload, _place(serving), 64, 2 * seconds)
            stop.set()
            if turn % 2:
                thread.join()
                failures += cell.bad
            rates[bool(turn % 2)].append(cell.rate)
            print(f"swaps: {bool(turn % 2)} {cell}", flush=True)
    return statistics.mean(rates[True]) / statistics.mean(rates[False]), failures, made


def _memory(payload: Payload) -> float:
    """One load of 270 MB, then fifty in its place, with requests going on."""
    with _serving() as serving:
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
    return after / once


def _resident(serving: Serving) -> int:
    status = Path(f"/proc/{serving.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)


def _start(payload: Payload) -> float:
    """With the order to serve as soon as the process listens, as the adapter gives it."""
    times = []
    digest = digest_of_file(payload.model)
    for _ in range(_STARTS):
        begun = time.perf_counter()
        with tempfile.TemporaryDirectory() as name, Serving(Path(name) / "state") as serving:
            assert serving.put("m", payload.model, digest=digest).status_code == 202
            while serving.infer("m", payload.json).status_code != 200:
                time.sleep(0.005)
            times.append(time.perf_counter() - begun)
    print(f"starts: {times}", flush=True)
    return statistics.median(times)


def _light_beside_heavy(
    light: Payload, heavy: Payload, seconds: float
) -> tuple[float, float, float]:
    """p99 of the light model beside the heavy one and alone, and the heavy one's rate."""
    with _serving() as serving:
        serving.deploy("m", light.model)
        serving.deploy("heavy", heavy.model)
        place = _place(serving)
        wrk(_PLAIN, light, place, 8, 1)
        alone = wrk(_PLAIN, light, place, 1, seconds)
        rates: list[float] = []
        path = "/v2/models/heavy/infer"
        contender = Contender("heavy", (), path=path)

        def saturate() -> None:
            rates.append(wrk(contender, heavy, place, 8, seconds + 2).rate)

        thread = threading.Thread(target=saturate)
        thread.start()
        time.sleep(1)
        beside = wrk(_PLAIN, light, place, 1, seconds)
        thread.join()
    print(f"light: {alone} alone, {beside} beside {rates[0]:.1f}/s", flush=True)
    assert not beside.bad, beside
    return beside.p99, alone.p99, rates[0]
