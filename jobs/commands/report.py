"""The command that shows everything on one page: report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.options import WorkspaceOption


def report(
    workspace: WorkspaceOption,
    experiment: Annotated[
        Path | None,
        typer.Option(
            help="Show the results of this experiment, a TOML file. [the workspace's runs]", show_default=False
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE for a {NAME} in the experiment. Repeatable.", show_default=False),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="Directory of the experiment's rows. [beside its file, by its name]", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page. [report.html in the workspace]", show_default=False)
    ] = None,
) -> None:
    """One HTML page, without network: teachers, margins, training, results with significance, query by query."""
    from jobs.commands.experiment_options import experiment_command, named_values
    from jobs.experiment.config import read_experiment
    from jobs.report.build import REPORT, Grid, write_report
    from jobs.terminal.console import console
    from pipeline.storage.workspace import Workspace

    ws, grid = Workspace.open(workspace), None
    if experiment is not None:
        asked = read_experiment(experiment, named_values(values))
        grid = Grid(asked, results or experiment.parent / asked.name, experiment_command(experiment, values))
    path = output or ws.path(REPORT)
    with console.status("reading the workspace"):
        write_report(ws, path, grid)
    console.print(f"report: {path}", soft_wrap=True)
