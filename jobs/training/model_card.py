"""The files of a student that people read: a model card, and a plot of loss and validation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

CARD, PLOT = "README.md", "training.png"


def write_card(directory: Path, name: str, facts: Mapping[str, Any]) -> None:
    """Write card and plot into a student's directory, from the facts of its student file."""
    if facts["losses"]:
        _plot(directory / PLOT, facts)
    (directory / CARD).write_text("\n".join(_lines(name, facts)) + "\n", encoding="utf-8")


def _lines(name: str, facts: Mapping[str, Any]) -> list[str]:
    from students.architectures import architecture  # imports torch

    settings, form = facts["settings"], facts["architecture"]
    loads = architecture(form).library_class
    library = ["library_name: sentence-transformers"] if loads else []
    lines = ["---", *library, "tags:", f"- {form}", "- distillation", "---", "", f"# {name}", ""]
    lines.append(f"A {form} student, trained {facts['steps']:,} steps from `{settings['init']}`.")
    lines += ["", f"Loads as `{loads}(directory)`." if loads else "Loads with prep alone.", "", "## Training", ""]
    lines += _table(("option", "value"), {k: v for k, v in settings.items() if k != "student"} | settings["student"])
    lines += ["", "## Data", "", "Fingerprints of the content that it was trained on.", ""]
    lines += _table(("input", "fingerprint"), facts["inputs"])
    if facts["validations"]:
        lines += ["", "## Validation", ""]
        queries, depth = settings["eval_queries"] or "all", settings["eval_depth"]
        lines += [
            f"nDCG@10 over {queries} judged queries of {settings['eval_split']}, re-ranking the first {depth} passages "
            f"of {settings['eval_candidates']}; the state of step {facts['kept_step']:,} was kept.",
            "",
        ]
        lines += _table(("step", "nDCG@10"), {step: f"{value:.4f}" for step, value in facts["validations"]})
    return lines


def _table(head: tuple[str, str], rows: Mapping[Any, Any]) -> list[str]:
    shown = [f"| {key} | {value} |" for key, value in rows.items() if value not in (None, "")]
    return [f"| {head[0]} | {head[1]} |", "|---|---|", *shown]


def _plot(path: Path, facts: Mapping[str, Any]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(*zip(*facts["losses"], strict=True), color="tab:blue")
    axes.set(xlabel="step", ylabel=f"loss ({facts['settings']['loss']})", yscale="log")
    if facts["validations"]:
        other = axes.twinx()
        other.plot(*zip(*facts["validations"], strict=True), color="tab:orange", marker="o")
        other.set_ylabel("nDCG@10")
    figure.savefig(path, dpi=100)
