"""The command `plan`, which estimates the cost of scoring before machines are rented."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.commands.options import Options, WorkspaceOption, with_settings
from pipeline.scores.settings import PairSettings


@with_settings
def plan(
    workspace: WorkspaceOption,
    teacher: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=SHAPE",
            help="Teacher and its shape (bert-base, bert-large, albert-large, …), or its checkpoint. Repeatable.",
        ),
    ],
    machine: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=DEVICES:TFLOPS:PRICE",
            help="Machine: its number of devices, and for one device the peak in TFLOPS and the price per hour. "
            "Repeatable.",
        ),
    ],
    pairs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Number of pairs to score.", show_default="the workspace's pairs"),
    ] = None,
    mean_tokens: Annotated[
        float, typer.Option(min=1.0, metavar="X", help="Mean number of tokens per pair; MS MARCO has about 90.")
    ] = 90.0,
    share_of_peak: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Fraction of the peak that scoring reaches.",
            show_default="as measured by the workspace's last prep score",
        ),
    ] = None,
    *,
    shards: Annotated[PairSettings, Options(only=("pairs_per_shard",))],
) -> None:
    """Estimate hours, cost and storage of scoring on machines. Writes nothing."""
    from jobs.commands.show import show_plan
    from jobs.models.checkpoints import locate_checkpoint, parse_named
    from jobs.scoring.plan import SHAPES, parse_machines
    from jobs.scoring.plan import plan as work_out
    from jobs.terminal.console import console
    from pipeline.errors import PrepError, UsageError
    from pipeline.scores.pairs import load_pairs
    from pipeline.storage.workspace import Workspace
    from teachers.checkpoints.checkpoint import resolve

    named = dict(parse_named("teacher", text) for text in teacher)
    machines = [parse_machines(text) for text in machine]
    if pairs is None:
        pairs = load_pairs(Workspace.open(workspace)).pairs
    if share_of_peak is None:
        try:
            summary = Workspace.open(workspace).read_json("summaries", "score.json")
            share_of_peak = float(summary["share_of_peak"])
        except (PrepError, KeyError):
            raise UsageError(
                "no scoring run of this workspace has measured the share of the peak",
                where=workspace,
                todo="run prep score on such a machine first, or pass --share-of-peak",
            ) from None
    shapes = {
        name: SHAPES[shape] if shape in SHAPES else resolve(locate_checkpoint(Workspace.open(workspace), shape)).config
        for name, shape in named.items()
    }
    estimate = work_out(
        shapes,
        machines,
        pairs=pairs,
        mean_tokens=mean_tokens,
        share_of_peak=share_of_peak,
        pairs_per_shard=shards.pairs_per_shard,
    )
    console.print(f"{pairs:,} pairs of {mean_tokens:g} tokens, at {share_of_peak:.0%} of the devices' peak")
    show_plan(estimate)
