"""The command that does sums before anything is rented: plan."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.commands.options import WorkspaceOption


def plan(
    workspace: WorkspaceOption,
    teacher: Annotated[
        list[str],
        typer.Option(help="NAME=SHAPE (bert-base, bert-large, albert-large, …) or NAME=CHECKPOINT. Repeatable."),
    ],
    machine: Annotated[
        list[str],
        typer.Option(help="NAME=DEVICES:TFLOPS:PRICE, per device: its peak, its price an hour. Repeatable."),
    ],
    pairs: Annotated[
        int | None, typer.Option(min=1, help="Pairs to score. [the workspace's]", show_default=False)
    ] = None,
    mean_tokens: Annotated[float, typer.Option(min=1.0, help="Tokens of a pair; MS MARCO has about 90.")] = 90.0,
    share_of_peak: Annotated[
        float | None,
        typer.Option(help="Reached of the peak. [measured by the workspace's last prep score]", show_default=False),
    ] = None,
    pairs_per_shard: Annotated[int, typer.Option(min=1, help="Whole shards are handed out.")] = 500_000,
) -> None:
    """Work out hours, cost and storage of scoring on given machines; computes nothing else and writes nothing."""
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
                todo="score a little on such a machine first, or give --share-of-peak",
            ) from None
    shapes = {
        name: SHAPES[shape] if shape in SHAPES else resolve(locate_checkpoint(Workspace.open(workspace), shape)).config
        for name, shape in named.items()
    }
    found = work_out(
        shapes,
        machines,
        pairs=pairs,
        mean_tokens=mean_tokens,
        share_of_peak=share_of_peak,
        pairs_per_shard=pairs_per_shard,
    )
    console.print(f"{pairs:,} pairs of {mean_tokens:g} tokens, at {share_of_peak:.0%} of the devices' peak")
    show_plan(found)
