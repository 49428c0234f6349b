"""A plot on two logarithmic axes, as SVG, with nothing but the standard library."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 720, 420, 60
COLOURS = ("#1f6f8b", "#c8553d", "#5b8c5a", "#6d597a")


@dataclass(frozen=True)
class Series:
    """A line: its name, and y by x. All above 0."""

    name: str
    points: Mapping[int, float]


class _Axis:
    def __init__(self, values: Sequence[float], begin: float, end: float) -> None:
        self._low = math.floor(math.log10(min(values)))
        self._high = math.ceil(math.log10(max(values)))
        self._begin, self._end = begin, end

    def ticks(self) -> list[float]:
        return [10.0**power for power in range(self._low, self._high + 1)]

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self._low) / max(self._high - self._low, 1)
        return self._begin + share * (self._end - self._begin)


def plot(file: Path, title: str, series: Sequence[Series]) -> None:
    """Write the plot; x is the number of objects."""
    across = _Axis([x for s in series for x in s.points], MARGIN, WIDTH - MARGIN)
    up = _Axis([y for s in series for y in s.points.values()], HEIGHT - MARGIN, MARGIN)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="24" font-size="15">{escape(title)}</text>',
        *_grid(across, up),
        *(line for i, s in enumerate(series) for line in _line(s, COLOURS[i], i, across, up)),
        "</svg>",
    ]
    file.write_text("\n".join(lines) + "\n")


def _grid(across: _Axis, up: _Axis) -> Iterator[str]:
    for tick in across.ticks():
        x = across(tick)
        yield _rule(x, MARGIN, x, HEIGHT - MARGIN)
        yield _text(x, HEIGHT - MARGIN + 18, f"{tick:,.0f}", "middle")
    for tick in up.ticks():
        y = up(tick)
        yield _rule(MARGIN, y, WIDTH - MARGIN, y)
        yield _text(MARGIN - 8, y + 4, f"{tick:g}", "end")
    yield _text(WIDTH / 2, HEIGHT - MARGIN + 36, "objects", "middle")


def _line(series: Series, colour: str, number: int, across: _Axis, up: _Axis) -> Iterator[str]:
    points = [(across(x), up(y)) for x, y in sorted(series.points.items())]
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f'<polyline points="{drawn}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for (x, y), value in zip(points, (v for _, v in sorted(series.points.items())), strict=True):
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
        yield _text(x, y - 7, f"{value:.3g}", "middle", colour)
    yield _text(MARGIN + 10 + 210 * number, 44, series.name, "start", colour)


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#444") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}">{escape(text)}</text>'
