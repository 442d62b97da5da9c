"""Commands about teachers' scores: score, verify."""

from __future__ import annotations

from typing import Annotated, Any, cast

import typer

from jobs.commands.options import WorkspaceOption


def score(
    workspace: WorkspaceOption,
    teacher: Annotated[
        list[str],
        typer.Option(help="NAME=CHECKPOINT: a Hub name, a directory, or a student of the workspace. Repeatable."),
    ],
    max_length: Annotated[
        int,
        typer.Option(
            min=1, help="Longest pair in tokens, special ones included; a student that reads apart has its own lengths."
        ),
    ] = 230,
    truncation: Annotated[str, typer.Option(help="longest_first or only_second.")] = "longest_first",
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16, float16 (GPU) or int8 (CPU); scores are float32 in any case.")
    ] = "float32",
    backend: Annotated[
        str | None,
        typer.Option(help="torch, or openvino on a CPU. [openvino for int8, else torch]", show_default=False),
    ] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Let torch.compile fuse the model.")] = False,  # noqa: A002
    batch_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of one batch. [tried out for long runs]", show_default=False)
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster. [$RAY_ADDRESS, which `ray job submit` sets]", show_default=False),
    ] = None,
    num_actors: Annotated[
        int | None,
        typer.Option(min=1, help="Score in that many Ray actors. [one per GPU, else by CPUs]", show_default=False),
    ] = None,
    cpus_per_actor: Annotated[float, typer.Option(min=0.1, help="CPU share of an actor.")] = 1.0,
    gpus_per_actor: Annotated[
        float | None,
        typer.Option(min=0.0, help="GPU share of an actor. [1 where there are GPUs]", show_default=False),
    ] = None,
    max_attempts: Annotated[int, typer.Option(min=1, help="How often a shard is tried before it is set aside.")] = 3,
    hang_seconds: Annotated[
        float, typer.Option(min=1.0, help="An actor without progress for so long is replaced.")
    ] = 900.0,
    overwrite: Annotated[bool, typer.Option(help="Replace scores of another model under the same name.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what there is to do, and what it takes.")
    ] = False,
) -> None:
    """Score every pair with teachers, cross-encoders or trained students of any architecture; only what is missing."""
    from jobs.cluster.settings import ClusterSettings
    from jobs.commands.show import show_estimates
    from jobs.commands.summary import run_summary
    from jobs.models.checkpoints import name_checkpoint, parse_named
    from jobs.scoring.estimate import estimate
    from jobs.scoring.stage import Throughput
    from jobs.scoring.stage import score as run
    from jobs.scoring.teachers import Teacher
    from jobs.terminal.console import console
    from jobs.terminal.progress import progress
    from pipeline.storage.workspace import Workspace
    from teachers.scorer import Work
    from teachers.settings import ScoringSettings

    ws = Workspace.open(workspace)
    settings = ScoringSettings(
        max_length, cast(Any, truncation), cast(Any, dtype), batch_tokens, None, cast(Any, backend), compile
    )
    named = [parse_named("teacher", text) for text in teacher]
    teachers = [Teacher(name, name_checkpoint(ws, checkpoint), settings) for name, checkpoint in named]
    cluster = ClusterSettings(address, num_actors, cpus_per_actor, gpus_per_actor, max_attempts, hang_seconds)
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
    found = f", {done.reused_pairs:,} found again" if done.reused_pairs else ""
    kept = f", {done.kept_shards:,} were there already" if done.kept_shards else ""
    console.print(
        f"scored {done.pairs:,} pairs{found}: {done.shards - done.kept_shards:,} of {done.shards:,} shards{kept}"
    )


def verify(
    workspace: WorkspaceOption,
    sample: Annotated[int, typer.Option(min=0, help="Pairs of each teacher to score again, one by one.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of the sample.")] = 0,
) -> None:
    """Read everything again: rows against footers, tables against each other, a sample against transformers."""
    from jobs.checks.verify import verify as check
    from jobs.commands.summary import run_summary
    from jobs.terminal.console import console
    from pipeline.errors import WorkspaceError
    from pipeline.storage.workspace import Workspace

    ws = Workspace.open(workspace)
    with run_summary(ws, "verify") as facts, console.status("verifying") as shown:
        found = check(ws, sample=sample, seed=seed, on_file=lambda path: shown.update(f"verifying {path}"))
        facts |= {"files": found.files, "rescored": found.rescored, "notes": found.notes}
        facts["problems"] = [f"{problem.path}: {problem.what}" for problem in found.problems]
        for note in found.notes:
            console.print(note, style="yellow")
        if found.problems:
            listed = "\n".join(f"  {line}" for line in facts["problems"])
            raise WorkspaceError(
                f"{len(found.problems)} problems in {found.files:,} files:\n{listed}",
                where=ws.root,
                todo="remove the files named and run their stages again: only what is missing is made",
            )
    console.print(f"{found.files:,} files are sound; {found.rescored:,} scores are those of transformers")
