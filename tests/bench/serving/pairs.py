"""Two sides of a goal, measured in turns.

The speed of a virtual machine drifts by a third within minutes. So what is compared is measured
next to each other, in slices of a second or two: A B, B A, A B and so on, with both servers up all
the time and one of them idle. Each pair of slices gives a ratio, and the goal is held against their
median.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bench.serving.load import Cell
from bench.serving.machine import Use, settle
from bench.serving.payloads import Loop


@dataclass(frozen=True)
class Gate:
    """One goal, and what was measured."""

    text: str
    sign: Literal[">=", "<="]
    goal: float
    values: tuple[float, ...]
    """One for each pair of slices, or a single one."""
    by_cpu: float | None = None
    """The same ratio by processor time of the servers, which the host's other guests move less."""

    @property
    def got(self) -> float:
        return statistics.median(self.values)

    @property
    def met(self) -> bool:
        return self.got >= self.goal if self.sign == ">=" else self.got <= self.goal


@dataclass
class Side:
    """One side: a name for people, and how a slice of it is measured."""

    name: str
    slice: Callable[[float], Cell]
    seconds: float = 1.0
    cells: list[Cell] = field(default_factory=list)

    def measure(self) -> Cell:
        cell = self.slice(self.seconds)
        self.cells.append(cell)
        print(f"  {self.name:24} {cell}", flush=True)
        settle()
        return cell


def looping(loop: Loop, rows: int, seconds: float = 1.0) -> Side:
    """The runtime alone, as a side."""

    def one(lasting: float) -> Cell:
        before = Use.now()
        rate, spent = loop.run(lasting)
        return Cell(
            rate, 0.0, 0.0, 0, spent, Use.since(before, server=rate * lasting * spent / 1e6)
        )

    return Side(f"session.run, {rows} rows", one, seconds)


@dataclass
class Pair:
    """Ours and theirs, and what of the two is compared."""

    text: str
    ours: Side
    theirs: Side
    sign: Literal[">=", "<="]
    goal: float
    of: Literal["rate", "p50"] = "rate"
    ratios: list[float] = field(default_factory=list)
    by_cpu: list[float] = field(default_factory=list)

    def gate(self) -> Gate:
        spent = statistics.median(self.by_cpu) if self.of == "rate" else None
        return Gate(self.text, self.sign, self.goal, tuple(self.ratios), spent)


def in_turns(pairs: Sequence[Pair], rounds: int) -> None:
    """Measure every pair so many times; who begins changes."""
    for turn in range(rounds):
        for pair in pairs:
            if turn % 2:
                ours, theirs = pair.ours.measure(), pair.theirs.measure()
            else:
                theirs, ours = pair.theirs.measure(), pair.ours.measure()
            ratio = ours.rate / theirs.rate if pair.of == "rate" else ours.p50 / theirs.p50
            pair.ratios.append(ratio)
            pair.by_cpu.append(theirs.cpu / ours.cpu if ours.cpu else 0.0)
            print(f"[{turn}] {pair.text}: {ratio:.3g}", flush=True)
