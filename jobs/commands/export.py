"""The command `export`, which writes triples and lists for other trainers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.options import StaleSettings, WorkspaceOption, with_settings
from pipeline.exports.settings import ExportSettings


@with_settings
def export(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIRECTORY", help="New directory for the export.", show_default=False),
    ],
    workspace: WorkspaceOption,
    *,
    stale: StaleSettings,
    settings: ExportSettings,
) -> None:
    """Write triples or lists in the format of a trainer, with a card; `datasets.load_dataset` loads the directory."""
    from jobs.commands.summary import run_summary
    from jobs.terminal.console import console
    from pipeline.exports.export import export as run
    from pipeline.storage.workspace import Workspace

    ws = Workspace.open(workspace, stale_ok=stale.stale_ok)
    with run_summary(ws, "export") as facts:
        made = run(ws, output, settings)
        facts |= {"directory": str(made.directory), "rows": {config.name: config.rows for config in made.configs}}
        facts |= {"fingerprint": made.fingerprint}
    for config in made.configs:
        console.print(f"{config.name}: {config.rows:,} rows in {made.directory / config.files}")
    if made.left_out:
        console.print(f"left out {made.left_out:,} groups with too few negatives")
    if made.left_out_passages:
        what = "passages that are not in the set with the others of their query"
        console.print(f"left out {made.left_out_passages:,} {what}")
