"""Commands about teachers' scores: score, verify."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.cluster.settings import ClusterSettings
from jobs.commands.options import StaleSettings, WorkspaceOption, with_settings
from teachers.settings import ScoringSettings


@with_settings
def score(
    workspace: WorkspaceOption,
    teacher: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=CHECKPOINT",
            help="Teacher to score with, and its checkpoint: a Hub name, a directory, or a student of the workspace. "
            "Repeatable.",
        ),
    ],
    overwrite: Annotated[
        bool, typer.Option(help="Replace scores of another model with the same teacher name.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what there is to score and how long it takes; write nothing.")
    ] = False,
    show_input: Annotated[
        bool, typer.Option("--show-input", help="Show the first pair as each teacher reads it; score nothing.")
    ] = False,
    *,
    stale: StaleSettings,
    settings: ScoringSettings,
    cluster: ClusterSettings,
) -> None:
    """Score every pair with teachers of any form: cross-encoders, language-model rerankers, encoder-decoders, or models
    that encode query and passage separately. Only missing shards are scored."""
    from jobs.commands.show import show_estimates
    from jobs.commands.summary import run_summary
    from jobs.models.checkpoints import name_checkpoint, parse_named
    from jobs.scoring.estimate import estimate
    from jobs.scoring.shard import first_input
    from jobs.scoring.stage import Throughput
    from jobs.scoring.stage import score as run
    from jobs.scoring.teachers import Teacher
    from jobs.terminal.console import console
    from jobs.terminal.progress import progress
    from pipeline.storage.workspace import Workspace
    from teachers.scorer import Work

    ws = Workspace.open(workspace, stale_ok=stale.stale_ok)
    named = [parse_named("teacher", text) for text in teacher]
    teachers = [Teacher(name, name_checkpoint(ws, checkpoint), settings) for name, checkpoint in named]
    if show_input:
        for named_teacher in teachers:
            console.rule(named_teacher.name, align="left")
            console.print(first_input(ws, named_teacher), highlight=False, markup=False, soft_wrap=True)
        return
    if dry_run:
        show_estimates(estimate(ws, teachers, cluster, overwrite=overwrite))
        return
    speed = Throughput()
    with (
        run_summary(ws, "score") as facts,
        progress("tokenise", "texts") as tokens,
        progress("score", "pairs") as meter,
    ):

        def on_work(work: Work) -> None:
            speed.add(work)
            meter.detail = speed.line()
            meter.advance(work.pairs)

        done = run(
            ws,
            teachers,
            cluster,
            overwrite=overwrite,
            on_plan=meter.plan,
            on_progress=on_work,
            on_tokens=tokens.set,
        )
        facts |= vars(done) | (speed.rates() if done.pairs else {})
    reused = f", {done.reused_pairs:,} reused from earlier scores" if done.reused_pairs else ""
    kept = f", {done.kept_shards:,} were complete" if done.kept_shards else ""
    console.print(
        f"scored {done.pairs:,} pairs{reused}: {done.shards - done.kept_shards:,} of {done.shards:,} shards{kept}"
    )


def verify(
    workspace: WorkspaceOption,
    sample: Annotated[
        int, typer.Option(min=0, metavar="N", help="Number of pairs of each teacher to score again with transformers.")
    ] = 32,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the sample.")] = 0,
) -> None:
    """Check all files: rows against footers, tables against each other, a sample of scores against transformers."""
    from jobs.checks.verify import verify as check
    from jobs.commands.summary import run_summary
    from jobs.terminal.console import console
    from pipeline.errors import WorkspaceError
    from pipeline.storage.workspace import Workspace

    ws = Workspace.open(workspace)
    with run_summary(ws, "verify") as facts, console.status("verifying") as shown:
        checked = check(ws, sample=sample, seed=seed, on_file=lambda path: shown.update(f"verifying {path}"))
        facts |= {"files": checked.files, "rescored": checked.rescored, "notes": checked.notes}
        facts["problems"] = [f"{problem.path}: {problem.what}" for problem in checked.problems]
        for note in checked.notes:
            console.print(note, style="yellow")
        if checked.problems:
            listed = "\n".join(
                f"  {problem.path}: {problem.what}" + (f"\n    to do: {problem.todo}" if problem.todo else "")
                for problem in checked.problems
            )
            raise WorkspaceError(
                f"{len(checked.problems)} problems in {checked.files:,} files:\n{listed}",
                where=ws.root,
                todo="follow the advice on each problem; other files of the same set are good, so keep them",
            )
    console.print(f"{checked.files:,} files are sound; {checked.rescored:,} scores equal those of transformers")
