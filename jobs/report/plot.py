"""Draws one plot as SVG: two axes and marks. `page.css` defines the colours, so plots follow the theme of the page.

A plot is 420 units wide with 13-unit letters: readable on a phone, and narrow enough for columns in a wide window.
Coordinates are rounded, so the same numbers give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from jobs.report.markup import call, units

WIDTH, HEIGHT = 420.0, 280.0
LEFT, RIGHT, TOP, BOTTOM = 66.0, 14.0, 14.0, 46.0
SERIES = 6
"""The number of colours; later series repeat them."""
Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Axis:
    """One axis: its label and its range."""

    label: str
    """Includes the unit."""
    low: float
    high: float
    log: bool = False
    share: bool = False
    """Whether ticks are shown as percentages."""

    @classmethod
    def over(cls, label: str, values: Sequence[float], *, zero: bool = False, share: bool = False) -> Axis:
        """An axis over all values with 5 % of margin; with `zero` it starts at 0."""
        low, high = (min(values), max(values)) if len(values) else (0.0, 1.0)
        room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        return cls(label, 0.0 if zero else low - room, high + room, share=share)

    @classmethod
    def decades(cls, label: str, values: Sequence[float]) -> Axis:
        """A logarithmic axis over all values."""
        return cls(label, min(values) / 1.6, max(values) * 1.6, log=True)

    def position(self, value: float, start: float, end: float) -> float:
        """The position of a value on the axis, as a coordinate between `start` and `end`."""
        low, high, value = (math.log(x) if self.log else x for x in (self.low, self.high, value))
        return start + (end - start) * (value - low) / (high - low)

    def ticks(self, most: int) -> list[float]:
        """Round values within the range, about `most` of them."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            ticks = [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5)]
        else:
            rough = (self.high - self.low) / most
            unit = 10.0 ** math.floor(math.log10(rough))
            step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough * 0.999)
            ticks = [step * i for i in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        return [value for value in ticks if self.low <= value <= self.high]

    def tick_text(self, value: float) -> str:
        """Formats the label of a tick."""
        if self.share:
            return f"{100 * value:.3g} %"
        if abs(value) >= 1e6:
            return f"{value / 1e6:g}M"
        return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:.4g}"


class Plot:
    """A plot to which marks are added; they are drawn in that order."""

    def __init__(self, x: Axis, y: Axis) -> None:
        self._x, self._y = x, y
        self._marks: list[Markup] = []
        self._names: list[tuple[float, float, str]] = []
        self._taken: list[Box] = []

    def line(self, points: Sequence[Point], series: int, *, dashed: bool = False) -> None:
        """Adds a line through points."""
        self._marks.append(call("plot.svg", "path", self._path(points), f"line s{series % SERIES}", dashed))

    def area(self, edges: Sequence[float], heights: Sequence[float], series: int) -> None:
        """Adds a filled step curve: heights (N,) between edges (N + 1,)."""
        corners = [(edges[0], 0.0)]
        for start, end, height in zip(edges, edges[1:], heights, strict=False):
            corners += [(start, height), (end, height)]
        path = self._path([*corners, (edges[-1], 0.0)])
        self._marks.append(call("plot.svg", "path", path + "Z", f"area s{series % SERIES}", False))

    def dot(self, point: Point, series: int, text: str = "") -> None:
        """Adds a dot. Its name is shown on hover, and beside the dot if there is space."""
        x, y = self._at(point)
        self._marks.append(call("plot.svg", "dot", x, y, f"dot s{series % SERIES}", text))
        self._taken.append((x - 5, y - 5, x + 5, y + 5))
        if text:
            self._names.append((x, y, text))

    def _notes(self) -> list[tuple[float, float, str]]:
        """The names beside their dots, at the first position that covers nothing. Names without one are left out."""
        taken, shown = list(self._taken), []
        for x, y, text in self._names:
            width = 7.5 * len(text)
            positions = [
                (x + side * 9 - (width if side < 0 else 0), y + down) for down in (4, -9, 17) for side in (1, -1)
            ]
            boxes = [(left, base - 11, left + width, base + 3) for left, base in positions]
            free = [box for box in boxes if _within(box) and not any(_overlap(box, other) for other in taken)]
            if not free:
                continue
            box = free[0]
            taken.append(box)
            shown.append((box[0], box[3] - 3, text))
        return shown

    def vertical(self, x: float, text: str) -> None:
        """Adds a vertical line at x with a text beside it."""
        if self._x.low <= x <= self._x.high:
            at = self._at((x, self._y.low))[0]
            anchor = "end" if at > WIDTH - 120 else "start"
            text_x = at - 5 if anchor == "end" else at + 5
            self._marks.append(call("plot.svg", "vertical", at, TOP, HEIGHT - BOTTOM, text, text_x, anchor))

    def svg(self, title: str) -> Markup:
        """Renders the plot; screen readers read the title."""
        x_ticks = [(self._at((value, self._y.low))[0], self._x.tick_text(value)) for value in self._x.ticks(6)]
        y_ticks = [(self._at((self._x.low, value))[1], self._y.tick_text(value)) for value in self._y.ticks(5)]
        box = (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM, WIDTH, HEIGHT)
        labels = (self._x.label, self._y.label)
        ticks = (x_ticks, _apart(x_ticks), y_ticks)
        return call("plot.svg", "plot", title, box, *labels, *ticks, self._marks, self._notes())

    def _at(self, point: Point) -> Point:
        x = self._x.position(point[0], LEFT, WIDTH - RIGHT)
        return x, self._y.position(point[1], HEIGHT - BOTTOM, TOP)

    def _path(self, points: Sequence[Point]) -> str:
        return "M" + "L".join(f"{units(x)} {units(y)}" for x, y in map(self._at, points))


def legend(entries: Sequence[tuple[str, int]], *, dashed: Sequence[int] = ()) -> Markup:
    """The legend: names of series with their colours, and dashes for series drawn dashed."""
    return call("parts.html", "legend", [(name, series % SERIES, series in dashed) for name, series in entries])


def _within(box: Box) -> bool:
    return box[0] > LEFT and box[1] > 0 and box[2] < WIDTH and box[3] < HEIGHT - BOTTOM


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _apart(ticks: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """The ticks whose texts do not overlap the previous text."""
    kept: list[tuple[float, str]] = []
    for x, text in ticks:
        if not kept or x - kept[-1][0] > 4 * (len(text) + len(kept[-1][1])) + 6:
            kept.append((x, text))
    return kept
