"""Writes what was measured into docs/: the table between its marks, and the plot."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape
from typing import TypedDict, cast

from bench.serving.contenders import ROOT

PAGE = ROOT / "docs/serving.md"
PLOT = ROOT / "docs/serving-speed.svg"
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"


class Numbers(TypedDict):
    """One cell."""

    rate: float
    p50: float
    p99: float
    bad: int


class Result(TypedDict):
    """One model."""

    limits: dict[int, float]
    cells: dict[str, dict[int, Numbers]]


def write_pages(results: Mapping[str, object]) -> None:
    """Replace the table, draw the plot."""
    measured = cast("Mapping[str, Result]", results)
    text = "\n\n".join(_table(name, result) for name, result in measured.items())
    page = PAGE.read_text()
    whole = f"{BEGIN}\n\n{text}\n\n{END}"
    PAGE.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: whole, page, flags=re.DOTALL))
    if "small" in measured:
        PLOT.write_text(_plot(measured["small"]))


def _table(name: str, result: Result) -> str:
    limits = result["limits"]
    title = (
        f"Model `{name}`; `session.run` in a loop: {limits[1]:,.0f} rows/s one by one,"
        f" {limits[32]:,.0f} in batches of 32."
    )
    lines = [title, "", "| server | 1 connection | 8 | 64 |", "|---|---|---|---|"]
    for contender, cells in result["cells"].items():
        parts = [
            f"{cell['rate']:,.0f} / {cell['p50']:.3g} / {cell['p99']:.3g}"
            + (f" ({cell['bad']} failed)" if cell["bad"] else "")
            for cell in cells.values()
        ]
        lines.append(f"| {contender} | {' | '.join(parts)} |")
    return "\n".join(lines)


def _plot(result: Result) -> str:
    """Bars: requests a second at 64 connections."""
    rates = {name: cells[64]["rate"] for name, cells in result["cells"].items()}
    rates["session.run in a loop"] = result["limits"][1]
    ordered = sorted(rates.items(), key=lambda item: -item[1])
    most, height = ordered[0][1], 40 + 28 * len(ordered)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="720" height="{height}" fill="#ffffff"/>',
        '<text x="20" y="24" font-size="15">Requests a second, one core, 64 connections,'
        " 784-256-10 perceptron</text>",
    ]
    for at, (name, rate) in enumerate(ordered):
        y, width = 40 + 28 * at, 430 * rate / most
        ours = name.startswith("Windlass")
        colour = "#1f6f8b" if ours else "#bbbbbb" if "session" in name else "#c8553d"
        lines.append(f'<text x="190" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        lines.append(
            f'<rect x="200" y="{y}" width="{width:.1f}" height="20" fill="{colour}"/>'
            f'<text x="{206 + width:.1f}" y="{y + 14}">{rate:,.0f}</text>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"
