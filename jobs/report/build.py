"""The report of a workspace, and of an experiment in it, as one page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jobs.experiment.config import Experiment
from jobs.experiment.tables import ALPHA
from jobs.report.markup import Content, el, join
from jobs.report.page import render
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
    "Slow teachers read query and passage together and score pairs; fast students learn from their scores. This page "
    "shows how the teachers score, what is taught, how training went, and what it brought, query by query."
)


@dataclass(frozen=True)
class Grid:
    """An experiment, and where its rows stand."""

    experiment: Experiment
    results: Path
    command: str
    """That runs it."""


def build_report(workspace: Workspace, grid: Grid | None = None) -> str:
    """The page; the same data gives the same bytes.

    Raises:
        WorkspaceError: a file of the workspace is damaged.
    """
    if grid is None:
        found, make = workspace_results(workspace), EVALUATE
    else:
        found, make = experiment_results(workspace, grid.experiment, grid.results, grid.command), grid.command
    sections = [
        results_section(found, make),
        queries_section(workspace, found, make),
        teachers_section(workspace),
        triples_section(workspace),
        training_section(workspace),
    ]
    name = grid.experiment.name if grid else workspace.root.name
    lead: list[Content] = [el("p", LEAD), _counts(workspace)]
    if found and found.compared:
        told = findings(found)
        shown = [el("li", one) for one in told[:MOST_FINDINGS]]
        if len(told) > len(shown):
            shown.append(el("li", f"{len(told) - len(shown)} more comparisons stand below."))
        how = f"What was compared, in {found.measure}; better and worse are those with an adjusted p below {ALPHA}:"
        lead += [el("p", how), el("ul", shown, class_="findings")]
    return render(f"Distillation report: {name}", join(lead), sections)


def write_report(workspace: Workspace, path: AnyPath, grid: Grid | None = None) -> None:
    """Write the page whole."""
    page = build_report(workspace, grid)
    with atomic_write(path) as stream:
        stream.write(page.encode())


def _counts(workspace: Workspace) -> Content:
    """What the workspace holds."""
    rows = []
    for table in ("passages", "queries", "qrels", "pairs"):
        parts = workspace.parts(table)
        if parts:
            label = {"qrels": "judgements"}.get(table, table)
            rows.append((label, sum(footer.rows for footer in read_footers(parts))))
    for dataset, label in (("scores", "teachers"), ("triples", "sets of triples"), ("students", "trained models")):
        rows.append((label, len(workspace.names(dataset))))
    return el("dl", [el("div", el("dt", label), el("dd", f"{count:,}")) for label, count in rows], class_="counts")
