"""The goals of serving: what each one compares, and whether it is met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypedDict

from bench.serving.operations import Operations


class Numbers(TypedDict):
    """One cell."""

    rate: float
    p50: float
    p99: float
    bad: int


class Result(TypedDict):
    """One model: limits by rows, cells by contender and number of connections."""

    limits: dict[int, float]
    cells: dict[str, dict[int, Numbers]]


@dataclass(frozen=True)
class Gate:
    """One goal."""

    text: str
    got: float
    sign: Literal[">=", "<="]
    goal: float

    @property
    def met(self) -> bool:
        return self.got >= self.goal if self.sign == ">=" else self.got <= self.goal


def gates(results: Mapping[str, Result], operations: Operations | None) -> list[Gate]:
    """Every goal that these measurements say something of."""
    found: list[Gate] = []
    if "small" in results:
        found += _small(results["small"])
    for name, model in results.items():
        if "Windlass" in model["cells"]:
            found += _heavy(name, model)
    if operations is not None:
        found += _operations(operations)
    return found


def _small(model: Result) -> Iterator[Gate]:
    cells, single = model["cells"], model["limits"][1]
    ours = cells.get("Windlass")
    if ours is None:
        return
    rate, p50 = ours[64]["rate"], ours[1]["p50"]
    peers = {name: each for name, each in cells.items() if not name.startswith("Windlass")}
    for name, goal in (("FastAPI", 10.0), ("Triton", 5.0), ("mosec batching", 1.75)):
        if name in peers:
            text = f"small, 64 connections: rate over that of {name}"
            yield Gate(text, rate / peers[name][64]["rate"], ">=", goal)
    yield Gate("small, 64: rate over `session.run` row by row", rate / single, ">=", 0.5)
    binary = cells.get("Windlass binary")
    if binary is not None and "Triton binary" in peers:
        text = "small, 64, binary tensors: rate over that of Triton"
        yield Gate(text, binary[64]["rate"] / peers["Triton binary"][64]["rate"], ">=", 4.0)
    if "FastAPI" in peers:
        text = "small, 1 connection: p50 over that of FastAPI"
        yield Gate(text, p50 / peers["FastAPI"][1]["p50"], "<=", 0.4)
    others = {name: each for name, each in peers.items() if "binary" not in name}
    if others:
        best = min(others, key=lambda name: others[name][1]["p50"])
        text = f"small, 1: p50 over that of the best peer, {best}"
        yield Gate(text, p50 / others[best][1]["p50"], "<=", 0.75)
    unbatched = cells.get("Windlass unbatched")
    if unbatched is not None:
        text = "small, 1: rate with batching over the rate without"
        yield Gate(text, ours[1]["rate"] / unbatched[1]["rate"], ">=", 0.9)


def _heavy(name: str, model: Result) -> Iterator[Gate]:
    cell = model["cells"]["Windlass"][64]
    if name == "deep":
        text = "deep (memory-bound), 64: rate over `session.run` in batches of 32"
        yield Gate(text, cell["rate"] / model["limits"][32], ">=", 0.88)
    if name == "conv":
        text = "conv (compute-bound), 64: rate over `session.run`"
        yield Gate(text, cell["rate"] / max(model["limits"].values()), ">=", 0.9)
        yield Gate("conv, 64: p99 over p50", cell["p99"] / cell["p50"], "<=", 1.15)
    yield Gate(f"{name}: failed requests", cell["bad"], "<=", 0)


def _operations(of: Operations) -> Iterator[Gate]:
    every = f"a swap every half second ({of.swaps})"
    yield Gate(f"{every}: failed requests", of.swap_failures, "<=", 0)
    yield Gate(f"{every}: rate over the rate without", of.swap_rate, ">=", 0.95)
    yield Gate("memory after 50 swaps of 270 MB over one load", of.memory, "<=", 1.2)
    yield Gate("start to first answer, seconds", of.start, "<=", 1.0)
    yield Gate("a light model beside a saturated heavy one: p99, ms", of.light, "<=", 3.0)


def table(found: list[Gate]) -> str:
    """As Markdown."""
    lines = ["| goal | measured | wanted | |", "|---|---|---|---|"]
    for gate in found:
        verdict = "met" if gate.met else "**missed**"
        lines.append(f"| {gate.text} | {gate.got:.3g} | {gate.sign} {gate.goal:g} | {verdict} |")
    return "\n".join(lines)
