"""Commands that look at what came out: evaluate, and the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from jobs.commands.options import SummaryOption, WorkspaceOption


def evaluate(
    workspace: WorkspaceOption,
    run: Annotated[
        list[str],
        typer.Option(
            help="Retriever of the workspace, or a run file (TREC or MS MARCO). Repeatable.",
            default_factory=list,
            show_default=False,
        ),
    ],
    teacher: Annotated[
        list[str], typer.Option(help="Teacher that has scored. Repeatable.", default_factory=list, show_default=False)
    ],
    ensemble: Annotated[
        list[str],
        typer.Option(
            help="Triples whose ensemble re-ranks: what their students learn from. Repeatable.",
            default_factory=list,
            show_default=False,
        ),
    ],
    student: Annotated[
        list[str],
        typer.Option(
            help="NAME of the workspace, or NAME=CHECKPOINT. Repeatable.", default_factory=list, show_default=False
        ),
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
    latency_queries: Annotated[
        int | None, typer.Option(min=1, help="Time that many of the queries. [all]", show_default=False)
    ] = None,
    summary: SummaryOption = None,
) -> None:
    """Measure systems on all judged queries of a split; ties go to the passage that comes first in the collection."""
    from jobs.commands.show import show_evaluation
    from jobs.commands.summary import run_summary
    from jobs.ranking.evaluate import EvaluationSettings, student_latencies
    from jobs.ranking.evaluate import evaluate as measure
    from jobs.ranking.run_facts import write_run_facts
    from jobs.terminal.console import console
    from pipeline.storage.workspace import Workspace

    ws = Workspace.open(workspace)
    settings = EvaluationSettings(
        split,
        run,
        teacher,
        student,
        ensemble,
        max_queries,
        cast(Any, mode),
        candidates,
        depth,
        relevance_level,
        cast(Any, dtype),
        latency_queries,
    )
    with run_summary(ws, "evaluate", summary) as facts, console.status("evaluating") as shown:
        rows = measure(ws, settings, on_system=lambda name: shown.update(f"evaluating {name}"))
        facts |= {"split": split, "max_queries": max_queries, "relevance_level": relevance_level}
        facts["systems"] = [{"system": row.system, "kind": row.kind, "run": str(row.path), **row.means} for row in rows]
        timed = student_latencies(ws, settings) if latency else []
        facts["latency"] = [found._asdict() for found in timed]
        write_run_facts(ws, settings, rows, timed)
    show_evaluation(split, rows)
    for found in timed:
        how = "passages encoded beforehand" if found.stored else "query and passage read together"
        console.print(
            f"{found.student}: {found.median_ms:.1f} ms a query (95th percentile {found.p95_ms:.1f}), re-ranking "
            f"{found.candidates:.0f} passages, {found.queries} queries, {how}"
        )
    console.print("runs: " + ", ".join(str(row.path) for row in rows), soft_wrap=True)


def demo(
    context: typer.Context,
    directory: Annotated[Path, typer.Option(help="Where the demo's workspace goes.")] = Path("demo"),
) -> None:
    """The whole job, small and offline, on docstrings of the installed packages; ends with a table."""
    from jobs.demo.demo import run_demo

    run_demo(context, directory)
