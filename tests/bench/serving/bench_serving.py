"""Windlass beside other model servers: same core, same model, same payload, answers checked.

``make bench-serving`` runs it: each peer in a venv of its own below .bench/. The server has core 0
and wrk core 1. Each goal compares two things, which are measured next to each other, slice by slice
(``pairs``); the table of all peers is measured one server after the other, for an overview.

``--only json,binary,one,deep,conv,swap,light,memory,start,table`` chooses goals, ``--pairs N`` is
the number of slices of each side; ``--peers NAME,NAME``, ``--rounds N`` and ``--seconds N`` are for
the table, where ``--all`` adds the peers that take long. Prints the goals, and whether each is met;
with ``--write`` they go into docs/serving.md with the table, and the plot beside that page.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from bench.serving.contenders import CONTENDERS
from bench.serving.goals import GOALS
from bench.serving.machine import described
from bench.serving.operations import OPERATIONS
from bench.serving.overview import Overview, overview
from bench.serving.pages import verdicts, write_pages
from bench.serving.pairs import Gate
from bench.serving.payloads import payloads
from bench.serving.servers import venv


def main() -> None:
    """Measure and print; with ``--write`` change the docs."""
    parser = argparse.ArgumentParser(description="Windlass beside other model servers.")
    parser.add_argument("--only", default=",".join((*GOALS, *OPERATIONS, "table")))
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--peers", default="")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: tests/rig/system-packages installs it")
    chosen = options.only.split(",")
    if odd := set(chosen) - {*GOALS, *OPERATIONS, "table"}:
        sys.exit(f"no goal is called {', '.join(sorted(odd))}; see --help")
    wanted = [each for each in options.peers.split(",") if each]
    peers = [c for c in CONTENDERS if c.name in wanted or (not wanted and (options.all or c.main))]
    for contender in CONTENDERS if GOALS.keys() & set(chosen) else peers:
        if contender.main or contender in peers:
            venv(contender)
    begun = time.monotonic()
    machine = described()
    print(machine, flush=True)
    found: list[Gate] = []
    tables: dict[str, Overview] = {}
    with tempfile.TemporaryDirectory() as folder:
        made = payloads(Path(folder))
        for name, measure in {**GOALS, **OPERATIONS}.items():
            if name in chosen:
                print(f"{name}:", flush=True)
                found += measure(made, options.pairs)
        if "table" in chosen:
            tables = overview(made, peers, options.rounds, options.seconds)
    print(verdicts(found))
    met = sum(gate.met for gate in found)
    minutes = (time.monotonic() - begun) / 60
    print(f"{met} of {len(found)} goals met, in {minutes:.1f} minutes")
    if options.write:
        write_pages(machine, tables, found)


if __name__ == "__main__":
    main()
