"""Commands that show results: evaluate, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.options import StaleSettings, SummaryOption, WorkspaceOption, with_settings
from jobs.ranking.settings import MEASURES, EvaluationSettings


@with_settings
def evaluate(
    workspace: WorkspaceOption,
    summary: SummaryOption = None,
    latency: Annotated[
        bool,
        typer.Option(
            "--latency",
            help="Also measure the time per query of each student, one query at a time, after a warm-up.",
            rich_help_panel=MEASURES,
        ),
    ] = False,
    *,
    stale: StaleSettings,
    settings: EvaluationSettings,
) -> None:
    """Evaluate systems on all judged queries of a split. Ties go to the passage that comes first in the collection."""
    from jobs.commands.show import show_evaluation
    from jobs.commands.summary import run_summary
    from jobs.ranking.evaluate import evaluate as measure
    from jobs.ranking.evaluate import student_latencies
    from jobs.ranking.run_facts import write_run_facts
    from jobs.terminal.console import console
    from pipeline.storage.workspace import Workspace

    ws = Workspace.open(workspace, stale_ok=stale.stale_ok)
    with run_summary(ws, "evaluate", summary) as facts, console.status("evaluating") as shown:
        rows = measure(ws, settings, on_system=lambda name: shown.update(f"evaluating {name}"))
        facts |= {
            "split": settings.split,
            "max_queries": settings.max_queries,
            "relevance_level": settings.relevance_level,
            "ignore_identical_ids": rows[0].identical_ids is not None,
            "systems": [{"system": row.system, "kind": row.kind, "run": str(row.path), **row.means} for row in rows],
        }
        timed = student_latencies(ws, settings) if latency else []
        facts["latency"] = [measured._asdict() for measured in timed]
        write_run_facts(ws, settings, rows, timed)
    show_evaluation(settings.split, rows)
    for measured in timed:
        how = "with encoded passages" if measured.stored else "query and passage encoded together"
        console.print(
            f"{measured.student}: {measured.median_ms:.1f} ms per query (95th percentile {measured.p95_ms:.1f}), "
            f"re-ranking {measured.candidates:.0f} passages, {measured.queries} queries, {how}"
        )
    console.print("runs: " + ", ".join(str(row.path) for row in rows), soft_wrap=True)


def demo(
    context: typer.Context,
    directory: Annotated[Path, typer.Option(metavar="DIRECTORY", help="Directory for the demo's workspace.")] = Path(
        "demo"
    ),
) -> None:
    """Run all stages, small and offline, on docstrings of the installed packages, and show a table of results."""
    from jobs.demo.demo import run_demo

    run_demo(context, directory)
