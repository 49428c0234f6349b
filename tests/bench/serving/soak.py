"""Hours of load with a swap every few seconds: no failed request, no memory that grows.

``make soak-serving MINUTES=1440``. Clients check every answer; at the end the slope of its
own memory is printed, over the second half, in KiB an hour. Exit code 1 when a request failed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

from rig import onnx_models
from rig.serving import Serving, tensor

ROW = {"inputs": [tensor("x", "FP32", [1, 2], [0, 0])]}
CLIENTS = 8
SWAP = 5.0


def resident(serving: Serving) -> int:
    """KiB of memory that is the process's own: pages of libraries come as they are used."""
    status = Path(f"/proc/{serving.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "RssAnon" in line)


def ask(url: str, stop: threading.Event, answered: list[int], faults: list[str]) -> None:
    """One client: every answer must be of one of the versions, whole."""
    with httpx.Client(timeout=60) as client:
        while not stop.is_set():
            try:
                response = client.post(url, json=ROW)
                outputs = [tuple(o["data"]) for o in response.json()["outputs"]]
            except (httpx.HTTPError, KeyError, ValueError) as error:
                faults.append(repr(error))
                continue
            if outputs[0] != outputs[1] or outputs[0] not in ((1.0, 1.0), (2.0, 2.0)):
                faults.append(response.text)
            answered[0] += 1


def main() -> None:
    """Load, swap, look; print."""
    parser = argparse.ArgumentParser(description="Load with swaps for a long time.")
    parser.add_argument("--minutes", type=float, default=10)
    minutes = parser.parse_args().minutes
    stop, answered, faults = threading.Event(), [0], list[str]()
    points: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = [onnx_models.constant(folder / f"{value}.onnx", value) for value in (1, 2)]
        with Serving(folder / "state") as serving:
            serving.deploy("m", models[0])
            url = f"http://127.0.0.1:{serving.port}/v2/models/m/infer"
            threads = [
                threading.Thread(target=ask, args=(url, stop, answered, faults))
                for _ in range(CLIENTS)
            ]
            for thread in threads:
                thread.start()
            begun, swaps = time.monotonic(), 0
            while (now := time.monotonic() - begun) < minutes * 60:
                points.append((now, resident(serving)))
                time.sleep(SWAP)
                swaps += 1
                serving.deploy("m", models[swaps % 2])
            stop.set()
            for thread in threads:
                thread.join(60)
    late = points[len(points) // 2 :]
    slope = statistics.linear_regression(*zip(*late, strict=True)).slope * 3600
    print(
        f"{minutes:g} minutes, {answered[0]} answers, {swaps} swaps, {len(faults)} faults,"
        f" {late[-1][1]} KiB at the end, {slope:+.0f} KiB an hour over the second half"
    )
    if faults:
        sys.exit("\n".join(faults[:5]))


if __name__ == "__main__":
    main()
