"""Commands that run models: score, evaluate, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from jobs.options import WorkspaceOption


def score(
    workspace: WorkspaceOption,
    teacher: Annotated[
        list[str],
        typer.Option(help="NAME=CHECKPOINT: a Hub name, a directory, or a student of the workspace. Repeatable."),
    ],
    max_length: Annotated[int, typer.Option(min=1, help="Longest pair in tokens, special ones included.")] = 230,
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
) -> None:
    """Score every pair with cross-encoder teachers; only what is missing."""
    from jobs.checkpoints import locate_checkpoint, parse_named
    from jobs.progress import progress
    from jobs.scoring import ClusterSettings
    from jobs.scoring import score as run
    from jobs.shard_scorer import Teacher
    from jobs.show import console
    from jobs.summary import run_summary
    from jobs.throughput import Throughput
    from pipeline.workspace import Workspace
    from teachers.scorer import Work
    from teachers.settings import ScoringSettings

    ws = Workspace.open(workspace)
    settings = ScoringSettings(
        max_length, cast(Any, truncation), cast(Any, dtype), batch_tokens, None, cast(Any, backend), compile
    )
    named = [parse_named("teacher", text) for text in teacher]
    teachers = [Teacher(name, locate_checkpoint(ws, checkpoint), settings) for name, checkpoint in named]
    cluster = ClusterSettings(address, num_actors, cpus_per_actor, gpus_per_actor, max_attempts, hang_seconds)
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


def evaluate(
    workspace: WorkspaceOption,
    run: Annotated[
        list[str],
        typer.Option(
            help="Retriever of the workspace, or a run file (TREC or MS MARCO). Repeatable.",
            default_factory=list,
        ),
    ],
    teacher: Annotated[list[str], typer.Option(help="Teacher that has scored. Repeatable.", default_factory=list)],
    student: Annotated[
        list[str],
        typer.Option(help="NAME of the workspace, or NAME=CHECKPOINT. Repeatable.", default_factory=list),
    ],
    mode: Annotated[
        list[str],
        typer.Option(
            help="Students rerank candidates, or retrieve from the whole collection. Repeatable. [rerank]",
            default_factory=lambda: ["rerank"],
            show_default=False,
        ),
    ],
    split: Annotated[str, typer.Option(help="Split whose judged queries count.")] = "dev",
    max_queries: Annotated[
        int | None,
        typer.Option(min=1, help="The same stable sample of judged queries as in mine. [all]", show_default=False),
    ] = None,
    candidates: Annotated[str, typer.Option(help="Retriever whose lists are re-ranked.")] = "bm25",
    depth: Annotated[int, typer.Option(min=1, help="Longest list.")] = 1000,
    relevance_level: Annotated[int, typer.Option(min=1, help="Least grade that is relevant for MRR and recall.")] = 1,
    dtype: Annotated[str, typer.Option(help="Arithmetic of students: float32, bfloat16 or float16.")] = "float32",
    latency: Annotated[
        bool, typer.Option("--latency", help="Also time each student: one query at a time, warm.")
    ] = False,
) -> None:
    """Measure systems on all judged queries of a split; ties go to the passage that comes first in the collection."""
    from jobs.evaluation import EvaluationSettings, student_latencies
    from jobs.evaluation import evaluate as measure
    from jobs.show import console, show_evaluation
    from jobs.summary import run_summary
    from pipeline.workspace import Workspace

    ws = Workspace.open(workspace)
    settings = EvaluationSettings(
        split, run, teacher, student, max_queries, cast(Any, mode), candidates, depth, relevance_level, cast(Any, dtype)
    )
    with run_summary(ws, "evaluate") as facts, console.status("evaluating") as shown:
        rows = measure(ws, settings, on_system=lambda name: shown.update(f"evaluating {name}"))
        facts["systems"] = [{"system": row.system, "kind": row.kind, **row.means} for row in rows]
        timed = student_latencies(ws, settings) if latency else []
        facts["latency"] = [found._asdict() for found in timed]
    show_evaluation(split, rows)
    for found in timed:
        how = "passages encoded beforehand" if found.stored else "query and passage read together"
        console.print(
            f"{found.student}: {found.median_ms:.1f} ms a query (95th percentile {found.p95_ms:.1f}), re-ranking "
            f"{found.candidates:.0f} passages, {found.queries} queries, {how}"
        )
    console.print("runs: " + ", ".join(str(row.path) for row in rows), soft_wrap=True)


def demo(
    directory: Annotated[Path, typer.Option(help="Where the demo's workspace goes.")] = Path("demo"),
) -> None:
    """The whole job, small and offline, on docstrings of the installed packages; ends with a table."""
    from jobs.demo import run_demo

    run_demo(directory)
