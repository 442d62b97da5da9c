"""The table of `explore-threshold` as CSV and as a plot."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

from pipeline.errors import UsageError
from pipeline.storage.workspace import atomic_write
from pipeline.triples.thresholds import Explored, ThresholdRow

KINDS = (".png", ".svg", ".pdf")
MOST = 10_000


def grid(first: float, last: float, step: float) -> list[float]:
    """Thresholds from first to last.

    Raises:
        UsageError: they do not make one.
    """
    if not np.isfinite([first, last, step]).all() or step <= 0 or last < first or (last - first) / step > MOST:
        raise UsageError(
            "no thresholds", expected="--from below --to, --step above 0", found=f"{first}, {last}, {step}"
        )
    return [round(first + i * step, 9) for i in range(int((last - first) / step + 1e-9) + 1)]


def check_plot(path: Path | None) -> None:
    """Refuse a file that cannot be drawn, before the work.

    Raises:
        UsageError: its name ends unlike a picture's.
    """
    if path is not None and path.suffix.lower() not in KINDS:
        raise UsageError("unknown kind of picture", expected=" or ".join(KINDS), found=str(path))


def write_csv(found: Explored, path: Path) -> None:
    """One line for each threshold."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*ThresholdRow._fields, "held_out_of"])
    writer.writerows([*row, found.held_out] for row in found.rows)
    with atomic_write(path) as stream:
        stream.write(text.getvalue().encode())


def draw(found: Explored, path: Path) -> None:
    """Shares kept and lost over the threshold."""
    from matplotlib.figure import Figure

    thresholds = [row.threshold for row in found.rows]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    shares = (
        ("triples kept", [row.triples / found.candidates for row in found.rows], "-"),
        ("queries kept", [row.queries / found.queries for row in found.rows], "--"),
        ("relevant passages taken as negatives", [row.held_out / max(found.held_out, 1) for row in found.rows], ":"),
    )
    for label, values, line in shares:
        axes.plot(thresholds, values, line, label=label)
    axes.set(xlabel="threshold on the ensemble's margin", ylabel="share", ylim=(0, 1.02))
    axes.set_title(", ".join(found.teachers))
    axes.legend()
    with atomic_write(path) as stream:
        figure.savefig(stream, format=path.suffix.lower().removeprefix("."))
