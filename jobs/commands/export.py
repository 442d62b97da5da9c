"""The command that hands triples and lists to other trainers: export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.options import WorkspaceOption
from pipeline.exports.formats import FORMATS

_NEGATIVES = ", ".join(f"{name} {form.negatives}" for name, form in FORMATS.items() if form.negatives)


def export(
    form: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT",
            help=f"One of {', '.join(FORMATS)}.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory to write.", show_default=False)],
    workspace: WorkspaceOption,
    triples: Annotated[str, typer.Option(help="Triple set.")] = "default",
    lists: Annotated[str | None, typer.Option(help="N-way lists, in place of triples.", show_default=False)] = None,
    ids: Annotated[bool, typer.Option("--ids", help="External ids in place of texts.")] = False,
    negatives: Annotated[
        int | None,
        typer.Option(help=f"For each positive or query. [{_NEGATIVES}, others all]", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the order and of the draw among negatives.")] = 0,
    license_name: Annotated[str, typer.Option("--license", help="Licence, for the card.")] = "unknown",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
) -> None:
    """Write triples or lists as a trainer reads them, with a card, ready for datasets.load_dataset."""
    from jobs.commands.summary import run_summary
    from jobs.terminal.console import console
    from pipeline.exports.export import ExportSettings
    from pipeline.exports.export import export as run
    from pipeline.storage.workspace import Workspace

    ws = Workspace.open(workspace)
    settings = ExportSettings(form, triples, lists, ids, negatives, seed, license_name, overwrite)
    with run_summary(ws, "export") as facts:
        made = run(ws, output, settings)
        facts |= {"directory": str(made.directory), "rows": {one.name: one.rows for one in made.configs}}
    for config in made.configs:
        console.print(f"{config.name}: {config.rows:,} rows in {made.directory / config.files}")
    if made.left_out:
        console.print(f"{made.left_out:,} groups with too few negatives left out")
