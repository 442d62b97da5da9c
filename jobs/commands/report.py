"""The command `report`, which shows a workspace on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.experiment_options import ResultsOption, ValuesOption, experiment_command, named_values
from jobs.commands.options import StaleSettings, WorkspaceOption, with_settings


@with_settings
def report(
    workspace: WorkspaceOption,
    experiment: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Show the results of this experiment, a TOML file.",
            show_default="the runs of the workspace",
        ),
    ] = None,
    values: ValuesOption = None,
    results: ResultsOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write the page here.", show_default="report.html in the workspace"
        ),
    ] = None,
    *,
    stale: StaleSettings,
) -> None:
    """Write one HTML page, readable offline: teachers, margins, training, results with significance, and queries."""
    from jobs.experiment.config import read_experiment
    from jobs.report.build import REPORT, Grid, write_report
    from jobs.terminal.console import console
    from pipeline.storage.workspace import Workspace

    ws, grid = Workspace.open(workspace, stale_ok=stale.stale_ok), None
    if experiment is not None:
        config = read_experiment(experiment, named_values(values))
        grid = Grid(config, results or experiment.parent / config.name, experiment_command(experiment, values))
    path = output or ws.path(REPORT)
    with console.status("reading the workspace"):
        write_report(ws, path, grid)
    console.print(f"report: {path}", soft_wrap=True)
