"""Every peer on every model, one after the other: an overview, not what goals are held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from bench.serving.contenders import Contender
from bench.serving.load import Cell, median, wrk
from bench.serving.payloads import Loop, Payload
from bench.serving.servers import running, wait_for_right_answer

CONNECTIONS = (1, 8, 64)
_HEAVY_SECONDS = 2
"""A heavy model's cells last so many times longer: it answers some sixty requests a second."""


class Overview(TypedDict):
    """One model."""

    limits: dict[int, float]
    """``session.run`` in a loop: rows a second, by rows of a run."""
    cells: dict[str, dict[int, Cell]]
    """By contender and number of connections."""


def overview(
    payloads: Mapping[str, Payload], peers: Sequence[Contender], rounds: int, seconds: float
) -> dict[str, Overview]:
    """Each model, between two measurements of what the runtime alone can do."""
    found = {}
    for name, payload in payloads.items():
        few = [peer for peer in peers if name == "small" or peer.heavy]
        lasting = seconds if name == "small" else seconds * _HEAVY_SECONDS
        before = _limits(payload)
        cells = _cells(few, payload, rounds, lasting)
        after = _limits(payload)
        limits = {rows: (limit + after[rows]) / 2 for rows, limit in before.items()}
        found[name] = Overview(limits=limits, cells=cells)
    return found


def _limits(payload: Payload) -> dict[int, float]:
    found = {}
    for rows in (1, 32):
        with Loop(payload, rows) as loop:
            found[rows], _ = loop.run(1)
    return found


def _cells(
    peers: Sequence[Contender], payload: Payload, rounds: int, seconds: float
) -> dict[str, dict[int, Cell]]:
    """Every contender at every number of connections, in alternating order; medians."""
    found: dict[str, dict[int, list[Cell]]] = {each.name: {} for each in peers}
    for turn in range(rounds):
        for contender in peers if turn % 2 == 0 else peers[::-1]:
            if contender.name not in found:
                continue
            try:
                with running(contender, payload) as place:
                    wait_for_right_answer(contender, payload, place.port)
                    wrk(contender, payload, place, 8, 1)
                    for connections in CONNECTIONS:
                        cell = wrk(contender, payload, place, connections, seconds)
                        found[contender.name].setdefault(connections, []).append(cell)
                        print(f"[{turn}] {contender.name:22} {connections:3} {cell}", flush=True)
            except TimeoutError as error:
                if contender.name.startswith("Windlass"):
                    raise
                print(f"left out: {error}", flush=True)
                del found[contender.name]
    return {name: {count: median(many) for count, many in by.items()} for name, by in found.items()}
