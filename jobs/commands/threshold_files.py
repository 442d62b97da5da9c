"""Writes the table of `explore-threshold` as CSV and as a plot."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from pipeline.errors import UsageError
from pipeline.storage.workspace import atomic_write
from pipeline.triples.thresholds import Explored, ThresholdRow

PLOT_SUFFIXES = (".png", ".svg", ".pdf")
MAX_THRESHOLDS = 10_000


def grid(first: float, last: float, step: float) -> list[float]:
    """Thresholds from first to last, both included.

    >>> grid(0.0, 1.0, 0.5)
    [0.0, 0.5, 1.0]

    Raises:
        UsageError: no threshold, more than `MAX_THRESHOLDS`, or a number that is not finite.
    """
    if (
        not np.isfinite([first, last, step]).all()
        or step <= 0
        or last < first
        or (last - first) / step > MAX_THRESHOLDS
    ):
        raise UsageError(
            "no thresholds to try",
            expected=f"--from below --to, --step above 0, at most {MAX_THRESHOLDS:,} steps",
            found=f"--from {first} --to {last} --step {step}",
        )
    return [round(first + i * step, 9) for i in range(int((last - first) / step + 1e-9) + 1)]


def check_plot(path: Path | None) -> None:
    """Check the suffix of a plot's file, before the work.

    Raises:
        UsageError: the suffix is not in `PLOT_SUFFIXES`.
    """
    if path is not None and path.suffix.lower() not in PLOT_SUFFIXES:
        raise UsageError("unknown --plot format", expected=" or ".join(PLOT_SUFFIXES), found=path)


def write_csv(explored: Explored, path: Path) -> None:
    """Write one line per threshold."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*ThresholdRow._fields, "held_out_of"])
    writer.writerows([*row, explored.held_out] for row in explored.rows)
    with atomic_write(path) as stream:
        stream.write(text.getvalue().encode())


def draw(explored: Explored, path: Path) -> None:
    """Plot the shares that are kept and lost over the threshold."""
    from matplotlib.figure import Figure

    thresholds = [row.threshold for row in explored.rows]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    held_out = max(explored.held_out, 1)
    shares = (
        ("triples kept", [row.triples / explored.candidates for row in explored.rows], "-"),
        ("queries kept", [row.queries / explored.queries for row in explored.rows], "--"),
        (
            "relevant passages taken as negatives",
            [row.held_out / held_out for row in explored.rows],
            ":",
        ),
    )
    for label, values, line in shares:
        axes.plot(thresholds, values, line, label=label)
    axes.set(xlabel="threshold on the ensemble's margin", ylabel="share", ylim=(0, 1.02))
    axes.set_title(", ".join(explored.teachers))
    axes.legend()
    with atomic_write(path) as stream:
        figure.savefig(stream, format=path.suffix.lower().removeprefix("."))
