"""Writes what was measured into docs/: goals and tables between their marks, and the plot."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape

from bench.serving.contenders import ROOT
from bench.serving.overview import Overview
from bench.serving.pairs import Gate

PAGE = ROOT / "docs/serving.md"
PLOT = ROOT / "docs/serving-speed.svg"
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"


def write_pages(machine: str, tables: Mapping[str, Overview], found: Sequence[Gate]) -> None:
    """Replace the tables, draw the plot."""
    texts = [f"Goals, on {machine}:\n\n{verdicts(found)}"]
    if "small" in tables:
        texts.append("![Requests a second beside other servers](serving-speed.svg)")
        PLOT.write_text(_plot(tables["small"]))
    texts += [_table(name, result) for name, result in tables.items()]
    whole = "\n\n".join([BEGIN, *texts, END])
    PAGE.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: whole, PAGE.read_text(), flags=re.DOTALL))


def verdicts(found: Sequence[Gate]) -> str:
    """The goals, as Markdown."""
    lines = [
        "| goal | median | pairs | by processor time | wanted | |",
        "|---|---|---|---|---|---|",
    ]
    for gate in found:
        few = f"{min(gate.values):.3g} to {max(gate.values):.3g}" if len(gate.values) > 1 else ""
        spent = f"{gate.by_cpu:.3g}" if gate.by_cpu is not None else ""
        verdict = "met" if gate.met else "**missed**"
        lines.append(
            f"| {gate.text} | {gate.got:.3g} | {few} | {spent} | {gate.sign} {gate.goal:g}"
            f" | {verdict} |"
        )
    return "\n".join(lines)


def _table(name: str, result: Overview) -> str:
    limits = result["limits"]
    title = (
        f"Model `{name}`; `session.run` in a loop: {limits[1]:,.0f} rows/s one by one,"
        f" {limits[32]:,.0f} in batches of 32. Requests a second / p50 / p99 in ms:"
    )
    lines = [title, "", "| server | 1 connection | 8 | 64 |", "|---|---|---|---|"]
    for contender, cells in result["cells"].items():
        parts = [
            f"{cell.rate:,.0f} / {cell.p50:.3g} / {cell.p99:.3g}"
            + (f" ({cell.bad} failed)" if cell.bad else "")
            for cell in cells.values()
        ]
        lines.append(f"| {contender} | {' | '.join(parts)} |")
    return "\n".join(lines)


def _plot(result: Overview) -> str:
    """Bars: requests a second at 64 connections."""
    rates = {name: cells[64].rate for name, cells in result["cells"].items()}
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
