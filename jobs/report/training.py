"""Section: training curves, of the loss and of the validation measure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from jobs.report.page import Figure, Missing, Section, Source, panel, panels
from jobs.report.plot import SERIES, Axis, Plot, legend
from jobs.report.sources import command, train_command
from pipeline.storage.workspace import Workspace
from students.settings import STUDENT_FILE

Facts = Mapping[str, Any]
SMOOTHED = 15
"""Logged points in the moving mean."""
INTRO = "Students and trained teachers use the same training loop. Values of different losses cannot be compared."
_TRAIN = command("train --architecture bert_dot --init CHECKPOINT --name NAME")


def training_section(workspace: Workspace) -> Section:
    """The curves of all students of the workspace, by architecture and loss."""
    groups: dict[tuple[str, str], dict[str, Facts]] = {}
    validated: dict[str, Facts] = {}
    for name in workspace.names("students"):
        facts = workspace.read_json("students", name, STUDENT_FILE)
        if len(facts["losses"]) > 1:
            groups.setdefault((facts["architecture"], facts["settings"]["loss"]), {})[name] = facts
        if facts.get("validations"):
            validated[name] = facts
    if not groups:
        return Section(
            "training", "Training", INTRO, [Missing("training curves", _TRAIN, "no student has been trained")]
        )
    plots: list[Markup] = []
    for (architecture, loss), students in sorted(groups.items()):
        curves = {name: _smooth(facts["losses"]) for name, facts in students.items()}
        plots.append(panel(f"{architecture} · {loss}", *_plot(curves, f"loss ({loss}), moving mean")))
    caption = (
        f"Moving mean of the loss over {SMOOTHED} logged points. If a curve still falls at its end, train for more "
        "steps; if it rises, lower the learning rate. All seeds of a student have the same colour."
    )
    every = {name: facts for students in groups.values() for name, facts in students.items()}
    parts: list[Figure | Missing] = [Figure("Loss by step", panels(*plots), caption, _sources(every))]
    if validated:
        parts.append(_validation(validated))
    return Section("training", "Training", INTRO, parts)


def _validation(students: Mapping[str, Facts]) -> Figure:
    curves = {name: [(float(s), float(v)) for s, v in facts["validations"]] for name, facts in students.items()}
    caption = "Effectiveness when re-ranking a sample of queries during training. The best checkpoint is kept."
    body = panels(panel("validation", *_plot(curves, "nDCG@10")))
    return Figure("Validation by step", body, caption, _sources(students))


def _plot(curves: Mapping[str, Sequence[tuple[float, float]]], unit: str) -> list[Markup]:
    """A legend and a plot. Students that differ only in their seed share a colour."""
    families = list(dict.fromkeys(map(_family, curves)))
    points = [point for curve in curves.values() for point in curve]
    values = [value for _, value in points]
    x = Axis("step", 0, max(step for step, _ in points) * 1.02)
    plot = Plot(x, Axis.over(unit, values, zero=min(values) >= 0))
    for name, curve in curves.items():
        series = families.index(_family(name))
        plot.line(curve, series, dashed=series >= SERIES)
    entries = [(family, series) for series, family in enumerate(families)]
    dashed = [series for series in range(len(families)) if series >= SERIES]
    return [legend(entries, dashed=dashed), plot.svg(f"{unit} by step for {', '.join(families)}")]


def _family(name: str) -> str:
    return re.sub(r"-s\d+$", "", name)


def _smooth(losses: Sequence[Sequence[float]]) -> list[tuple[float, float]]:
    steps, values = np.array(losses, np.float64).T
    width = min(SMOOTHED, len(values))
    means = np.convolve(values, np.ones(width) / width, mode="valid")
    return list(zip(np.convolve(steps, np.ones(width) / width, mode="valid").tolist(), means.tolist(), strict=True))


def _sources(students: Mapping[str, Facts]) -> list[Source]:
    return [
        Source(train_command(name, facts["settings"]), {**facts["inputs"], f"students/{name}": facts["fingerprint"]})
        for name, facts in students.items()
    ]
