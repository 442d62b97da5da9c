"""The command that runs a grid of students and says what differs: experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.options import WorkspaceOption


def experiment(
    context: typer.Context,
    config: Annotated[Path, typer.Argument(help="The experiment, as TOML.")],
    workspace: WorkspaceOption,
    results: Annotated[
        Path | None,
        typer.Option(help="Directory of result rows and tables. [beside the file, by its name]", show_default=False),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE for a {NAME} in the file. Repeatable.", show_default=False),
    ] = None,
    only: Annotated[str, typer.Option(help="Run cells with this in their name.")] = "",
    minutes: Annotated[
        float | None, typer.Option(help="Begin no cell after that many minutes. [no limit]", show_default=False)
    ] = None,
    stages: Annotated[
        bool,
        typer.Option(
            "--stages/--no-stages", help="Run the stages first, or know the workspace to have what they make."
        ),
    ] = True,
    table_only: Annotated[bool, typer.Option("--table-only", help="Run nothing; make the tables anew.")] = False,
) -> None:
    """Run what has no result yet, cell by cell; write the tables of all results there are, and the report."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from jobs.commands.experiment_options import experiment_command, named_values
    from jobs.experiment.config import read_experiment
    from jobs.experiment.run import read_rows, run_experiment
    from jobs.experiment.tables import compare_targets, markdown
    from jobs.report.build import REPORT, Grid, write_report
    from jobs.terminal.console import console, run_command
    from pipeline.storage.workspace import Workspace, atomic_write

    def run(command: str) -> None:
        run_command(context, command)

    asked = read_experiment(config, named_values(values))
    where = results or config.parent / asked.name
    if not table_only:
        done, left = run_experiment(asked, workspace, where, run, only=only, minutes=minutes, stages=stages)
        console.print(f"\n{done} cells run, {left} still to be run; the others have rows in {where}", soft_wrap=True)
    rows = read_rows(asked, where)
    text = markdown(asked, rows, compare_targets(asked, rows))
    with atomic_write(where / "results.md") as stream:
        stream.write(text.encode())
    columns = [{**row.means, **{k: v for k, v in vars(row).items() if k not in ("means", "values")}} for row in rows]
    with atomic_write(where / "results.parquet") as stream:
        pq.write_table(pa.Table.from_pylist(columns), stream)
    console.print(text, markup=False, highlight=False)
    if not table_only:
        ws = Workspace.open(workspace)
        write_report(ws, ws.path(REPORT), Grid(asked, where, experiment_command(config, values)))
        console.print(f"report: {ws.path(REPORT)}", soft_wrap=True)
