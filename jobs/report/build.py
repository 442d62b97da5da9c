"""Builds the report of a workspace, or of an experiment in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from jobs.experiment.config import Experiment
from jobs.experiment.tables import ALPHA
from jobs.report.page import Opening, render
from jobs.report.queries import queries_section
from jobs.report.result_rows import experiment_results, workspace_results
from jobs.report.results import EVALUATE, findings, results_section
from jobs.report.teachers import teachers_section
from jobs.report.training import training_section
from jobs.report.triples import triples_section
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace, atomic_write
from pipeline.tables.parts import read_footers

REPORT = "report.html"
MOST_FINDINGS = 20
LEAD = (
    "Accurate but slow teachers read a query and a passage together and score the pair. Fast students are trained to "
    "reproduce these scores. This page shows the students' results, in total and query by query, the teachers' scores, "
    "the training triples, and the training curves."
)


@dataclass(frozen=True)
class Grid:
    """An experiment and its results."""

    experiment: Experiment
    results: Path
    """Directory of the result files."""
    command: str
    """The command that runs the experiment."""


def build_report(workspace: Workspace, grid: Grid | None = None) -> str:
    """Builds the page. The same data gives the same bytes.

    Raises:
        WorkspaceError: a file of the workspace is damaged.
    """
    if grid is None:
        results, command = workspace_results(workspace), EVALUATE
    else:
        results, command = experiment_results(workspace, grid.experiment, grid.results, grid.command), grid.command
    sections = [
        results_section(results, command),
        queries_section(workspace, results, command),
        teachers_section(workspace),
        triples_section(workspace),
        training_section(workspace),
    ]
    name = grid.experiment.name if grid else workspace.root.name
    opening = Opening(LEAD, _counts(workspace))
    if results and results.compared:
        sentences = findings(results)
        shown = sentences[:MOST_FINDINGS]
        if len(sentences) > len(shown):
            shown.append(f"{len(sentences) - len(shown)} more comparisons are listed below.")
        intro = f"Differences in {results.measure}. Better and worse mean an adjusted p-value below {ALPHA}:"
        opening = replace(opening, findings_intro=intro, findings=shown)
    return render(f"Distillation report: {name}", opening, sections)


def write_report(workspace: Workspace, path: AnyPath, grid: Grid | None = None) -> None:
    """Writes the page; the file is replaced as a whole."""
    page = build_report(workspace, grid)
    with atomic_write(path) as stream:
        stream.write(page.encode())


def _counts(workspace: Workspace) -> list[tuple[str, int]]:
    """Labels and sizes of the tables and data sets in the workspace."""
    rows = []
    for table in ("passages", "queries", "qrels", "pairs"):
        parts = workspace.parts(table)
        if parts:
            label = {"qrels": "judgements"}.get(table, table)
            rows.append((label, sum(footer.rows for footer in read_footers(parts))))
    for dataset, label in (("scores", "teachers"), ("triples", "triple sets"), ("students", "trained models")):
        rows.append((label, len(workspace.names(dataset))))
    return rows
