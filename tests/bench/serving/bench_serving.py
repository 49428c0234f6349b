"""Windlass beside other model servers: same core, same model, same payload, answers checked.

``make bench-serving`` runs it: each peer in a venv of its own below .bench/, rounds in alternating
order, medians. The server has core 0 and wrk core 1. ``--only NAME,NAME``, ``--rounds N``,
``--seconds N`` and ``--models small,deep,conv,operations`` choose less, ``--all`` adds the peers
that take long. Prints the goals, and whether each is met; with ``--write`` they go into
docs/serving.md with the table, and the plot to docs/serving-speed.svg.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.serving.contenders import CONTENDERS, Contender
from bench.serving.gates import Numbers, Result, gates, table
from bench.serving.load import Cell, median, wrk
from bench.serving.operations import Operations, measure_operations
from bench.serving.pages import write_pages
from bench.serving.payloads import Payload, payloads, raw_limit
from bench.serving.servers import running, venv, wait_for_right_answer

_CONNECTIONS = (1, 8, 64)
_HEAVY_SECONDS = 2.0
"""A heavy model's cells last so many times longer: it answers some sixty requests a second."""


def _measure(
    contenders: Sequence[Contender], payload: Payload, rounds: int, seconds: float
) -> dict[str, dict[int, list[Cell]]]:
    """Every contender at every number of connections, in alternating order."""
    found: dict[str, dict[int, list[Cell]]] = {each.name: {} for each in contenders}
    for turn in range(rounds):
        for contender in contenders if turn % 2 == 0 else contenders[::-1]:
            if contender.name not in found:
                continue
            try:
                with running(contender, payload) as place:
                    wait_for_right_answer(contender, payload, place.port)
                    wrk(contender, payload, place, 8, 1)
                    for connections in _CONNECTIONS:
                        cell = wrk(contender, payload, place, connections, seconds)
                        found[contender.name].setdefault(connections, []).append(cell)
                        print(f"[{turn}] {contender.name:22} {connections:3} {cell}", flush=True)
            except TimeoutError as error:
                if contender.name.startswith("Windlass"):
                    raise
                print(f"left out, with every goal that it is part of: {error}", flush=True)
                del found[contender.name]
    return found


def _numbers(cells: Sequence[Cell]) -> Numbers:
    middle = median(cells)
    return {"rate": middle.rate, "p50": middle.p50, "p99": middle.p99, "bad": middle.bad}


def _result(
    contenders: Sequence[Contender], payload: Payload, rounds: int, seconds: float
) -> Result:
    """One model, between two measurements of what the runtime alone can do."""
    before = {rows: raw_limit(payload, rows, 1) for rows in (1, 32)}
    cells = _measure(contenders, payload, rounds, seconds)
    limits = {rows: (limit + raw_limit(payload, rows, 1)) / 2 for rows, limit in before.items()}
    return {
        "limits": limits,
        "cells": {
            name: {connections: _numbers(many) for connections, many in by.items()}
            for name, by in cells.items()
        },
    }


def main() -> None:
    """Measure and print; with ``--write`` change the docs."""
    parser = argparse.ArgumentParser(description="Windlass beside other model servers.")
    parser.add_argument("--only", default="")
    parser.add_argument("--models", default="small,deep,conv,operations")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: tests/rig/system-packages installs it")
    wanted = [each for each in options.only.split(",") if each]
    chosen = [c for c in CONTENDERS if c.name in wanted or (not wanted and (options.all or c.main))]
    for contender in chosen:
        venv(contender)
    begun = time.monotonic()
    results: dict[str, Result] = {}
    operations: Operations | None = None
    with tempfile.TemporaryDirectory() as folder:
        made = payloads(Path(folder))
        for name, payload in made.items():
            if name not in options.models.split(","):
                continue
            seconds = options.seconds * (1 if name == "small" else _HEAVY_SECONDS)
            few = [c for c in chosen if name == "small" or c.heavy]
            results[name] = _result(few, payload, options.rounds, seconds)
            print(name, "raw", results[name]["limits"], flush=True)
        if "operations" in options.models.split(","):
            operations = measure_operations(made, options.seconds)
    found = gates(results, operations)
    print(table(found))
    missed = [gate for gate in found if not gate.met]
    minutes = (time.monotonic() - begun) / 60
    print(f"{len(found) - len(missed)} of {len(found)} goals met, in {minutes:.1f} minutes")
    if options.write:
        write_pages(results, found)


if __name__ == "__main__":
    main()
