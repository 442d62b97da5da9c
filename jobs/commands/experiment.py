"""The command `experiment`, which trains and compares a grid of students."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.experiment_options import ResultsOption, ValuesOption, experiment_command, named_values
from jobs.commands.options import WorkspaceOption


def experiment(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(help="Experiment, a TOML file.")],
    workspace: WorkspaceOption,
    results: ResultsOption = None,
    values: ValuesOption = None,
    only: Annotated[
        str, typer.Option(metavar="TEXT", help="Run only cells whose names contain this.", show_default=False)
    ] = "",
    minutes: Annotated[
        float | None,
        typer.Option(metavar="X", help="Start no cell after this many minutes.", show_default="no limit"),
    ] = None,
    stages: Annotated[
        bool,
        typer.Option(
            "--stages/--no-stages",
            help="Run the stages before the cells; --no-stages relies on what the workspace has.",
        ),
    ] = True,
    table_only: Annotated[bool, typer.Option("--table-only", help="Run no cell; only write the tables again.")] = False,
) -> None:
    """Run the cells that have no result yet, then write the tables of all results and the report."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from jobs.experiment.config import read_experiment
    from jobs.experiment.run import read_rows, run_experiment
    from jobs.experiment.tables import compare_targets, markdown
    from jobs.report.build import REPORT, Grid, write_report
    from jobs.terminal.console import console, run_command
    from pipeline.storage.workspace import Workspace, atomic_write

    def run(command: str) -> None:
        run_command(context, command)

    described = read_experiment(config, named_values(values))
    where = results or config.parent / described.name
    if not table_only:
        done, left = run_experiment(described, workspace, where, run, only=only, minutes=minutes, stages=stages)
        console.print(f"\n{done} cells run, {left} still to be run; the others have rows in {where}", soft_wrap=True)
    rows = read_rows(described, where)
    text = markdown(described, rows, compare_targets(described, rows))
    with atomic_write(where / "results.md") as stream:
        stream.write(text.encode())
    columns = [{**row.means, **{k: v for k, v in vars(row).items() if k not in ("means", "values")}} for row in rows]
    with atomic_write(where / "results.parquet") as stream:
        pq.write_table(pa.Table.from_pylist(columns), stream)
    console.print(text, markup=False, highlight=False)
    if not table_only:
        ws = Workspace.open(workspace)
        write_report(ws, ws.path(REPORT), Grid(described, where, experiment_command(config, values)))
        console.print(f"report: {ws.path(REPORT)}", soft_wrap=True)
