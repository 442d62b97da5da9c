"""Commands that run students: train, evaluate, and the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from jobs.options import WorkspaceOption


def train(
    workspace: WorkspaceOption,
    name: Annotated[str, typer.Option(help="Name of the student.")],
    init: Annotated[str, typer.Option(help="Start from: a Hub name, a directory, or a student of the workspace.")],
    architecture: Annotated[str, typer.Option(help="bert_dot or bert_cat.")] = "bert_dot",
    loss: Annotated[str, typer.Option(help="margin_mse (from triples), ranknet or bce.")] = "margin_mse",
    triples: Annotated[
        str | None,
        typer.Option(help="Triple set to learn from. [default, for losses from teachers]", show_default=False),
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(help="qrels: learn from judgements and retrieved negatives.", show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(help="Queries to learn from, with --targets qrels.")] = "train",
    negatives: Annotated[int, typer.Option(min=1, help="Negatives of a positive, with --targets qrels.")] = 1,
    random_negatives: Annotated[
        int, typer.Option(min=0, help="Negatives more, retrieved for other queries: a fresh encoder learns faster.")
    ] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Queries of one step.")] = 32,
    epochs: Annotated[float, typer.Option(help="Passes over the rows.")] = 1.0,
    max_steps: Annotated[
        int | None,
        typer.Option(min=0, help="Stop after that many steps; 0 gives the untrained start.", show_default=False),
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 2e-5,
    head_learning_rate: Annotated[
        float | None,
        typer.Option(help="Of a cross-encoder's new head: several times higher saves steps.", show_default=False),
    ] = None,
    warmup_share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the steps in which it rises.")] = 0.1,
    weight_decay: Annotated[float, typer.Option(min=0.0, help="AdamW's weight decay.")] = 0.01,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16 (autocast).")] = "float32",
    max_query_length: Annotated[int, typer.Option(help="Longest query in tokens.")] = 30,
    max_passage_length: Annotated[int, typer.Option(help="Longest passage in tokens.")] = 200,
    max_length: Annotated[int, typer.Option(help="Longest pair in tokens, for bert_cat.")] = 230,
    num_layers: Annotated[
        int | None, typer.Option(min=1, help="Keep the first layers only. [all]", show_default=False)
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(help="cls or mean, for bert_dot. [the checkpoint's own, else cls]", show_default=False),
    ] = None,
    normalize: Annotated[
        bool | None,
        typer.Option(help="Vectors of unit length, for bert_dot. [the checkpoint's own, else no]", show_default=False),
    ] = None,
    scale: Annotated[float, typer.Option(help="Factor of the cosine in training, for unit vectors.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Seed of new weights, dropout and the order of rows.")] = 0,
    save_steps: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    overwrite: Annotated[bool, typer.Option(help="Replace a student trained otherwise.")] = False,
) -> None:
    """Train a student from triples, or a teacher from judgements; goes on where it was cut short."""
    from jobs.progress import progress
    from jobs.show import console
    from jobs.summary import run_summary
    from jobs.training import train_student
    from pipeline.errors import UsageError
    from pipeline.workspace import Workspace
    from students.settings import NEEDS_TEACHER, StudentSettings, TrainSettings

    if targets not in (None, "qrels"):
        raise UsageError("unknown --targets", expected="qrels", found=targets)
    if targets and triples:
        raise UsageError("--targets and --triples exclude each other")
    if triples is None and targets is None and loss in NEEDS_TEACHER:
        triples = "default"
    student = StudentSettings(
        max_query_length, max_passage_length, max_length, num_layers, cast(Any, pooling), normalize, scale
    )
    settings = TrainSettings(
        architecture,
        init,
        cast(Any, loss),  # names are checked when the settings are built
        triples,
        split,
        negatives,
        random_negatives,
        batch_size,
        epochs,
        max_steps,
        learning_rate,
        head_learning_rate,
        warmup_share,
        weight_decay,
        precision=cast(Any, precision),
        seed=seed,
        save_steps=save_steps,
        student=student,
    )
    ws = Workspace.open(workspace)
    with run_summary(ws, "train") as facts, progress(f"train {name}", "steps") as meter:

        def on_step(step: int, steps: int, loss_value: float) -> None:
            meter.label = f"train {name}, loss {loss_value:.3f}"
            meter.set(step, steps)

        trained = train_student(ws, name, settings, overwrite=overwrite, on_step=on_step)
        facts |= {
            "name": name,
            "rows": trained.rows,
            "steps": trained.steps,
            "last_loss": trained.last_loss,
            "resumed_at": trained.resumed_at,
            "unchanged": trained.unchanged,
        }
    if trained.unchanged:
        console.print(f"students/{name} is trained already; nothing to do")
        return
    resumed = f", went on from step {trained.resumed_at:,}" if trained.resumed_at else ""
    ended = f", last loss {trained.last_loss:.4g}" if trained.last_loss is not None else ""
    console.print(f"students/{name}: {trained.steps:,} steps over {trained.rows:,} rows{ended}{resumed}")


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
) -> None:
    """Measure systems on all judged queries of a split; ties go to the passage that comes first in the collection."""
    from jobs.evaluation import EvaluationSettings
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
        facts |= {"split": split, "max_queries": max_queries}
        facts["systems"] = [{"system": row.system, "kind": row.kind, "run": str(row.path), **row.means} for row in rows]
    show_evaluation(split, rows)
    console.print("runs: " + ", ".join(str(row.path) for row in rows), soft_wrap=True)


def demo(
    directory: Annotated[Path, typer.Option(help="Where the demo's workspace goes.")] = Path("demo"),
) -> None:
    """The whole job, small and offline, on docstrings of the installed packages; ends with a table."""
    from jobs.demo import run_demo

    run_demo(directory)
