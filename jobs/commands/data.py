"""Commands on plain data: import msmarco, hold-out, mine, build-pairs, status."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from jobs.commands.options import Processes, StaleSettings, WorkspaceOption, split_files, with_settings
from pipeline.retrieval.settings import Bm25Settings
from pipeline.scores.settings import PairSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.retrieval.retrievers import Retriever
    from pipeline.storage.workspace import Workspace


def import_msmarco(
    queries: Annotated[
        list[str],
        typer.Option(
            metavar="SPLIT=FILE",
            help="File of the queries of a split: query id, text. Repeatable.",
            default_factory=list,
            show_default=False,
        ),
    ],
    qrels: Annotated[
        list[str],
        typer.Option(
            metavar="SPLIT=FILE",
            help="File of the judgements of a split: query id, 0, passage id, grade (MS MARCO or TREC). Repeatable.",
            default_factory=list,
            show_default=False,
        ),
    ],
    workspace: WorkspaceOption,
    collection: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File of the passages: passage id, text. Needed only once for a workspace.",
            show_default=False,
        ),
    ] = None,
    keep_unknown: Annotated[
        bool,
        typer.Option(
            "--keep-unknown-passages",
            help="Keep judgements of passages that are not in the collection; measures count them as never found.",
        ),
    ] = False,
) -> None:
    """Import MS MARCO files: tab-separated, without a header, plain or compressed. A later import adds rows."""
    from jobs.commands.show import show_added
    from jobs.commands.summary import run_summary
    from pipeline.errors import UsageError
    from pipeline.imports.msmarco import import_msmarco as run
    from pipeline.storage.workspace import Workspace

    if not (collection or queries or qrels):
        raise UsageError("nothing to import", todo="pass --collection, --queries or --qrels")
    files = split_files("--queries", queries), split_files("--qrels", qrels)
    ws = Workspace.open(workspace, create=True)
    with run_summary(ws, "import-msmarco") as facts:
        added = run(ws, collection, *files, keep_unknown=keep_unknown)
        facts |= vars(added)
    show_added(added)


def hold_out(
    name: Annotated[str, typer.Argument(help="Name of the new split.", show_default=False)],
    workspace: WorkspaceOption,
    queries: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Move this many judged queries to the new split, the same sample every time.",
            show_default=False,
        ),
    ] = None,
    ids: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Move the queries of this file, one query id per line.", show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="Split to take the queries from.")] = "train",
) -> None:
    """Move some queries of a split to a new split, to select settings on."""
    from jobs.commands.summary import run_summary
    from jobs.terminal.console import console
    from pipeline.collection.hold_out import hold_out as run
    from pipeline.errors import UsageError
    from pipeline.storage.workspace import Workspace

    which = queries if ids is None else ids
    if which is None or (queries is not None and ids is not None):
        raise UsageError("hold-out needs the queries to move", expected="--queries or --ids, and not both")
    ws = Workspace.open(workspace)
    with run_summary(ws, "hold-out") as facts:
        facts["moved"] = moved = run(ws, name, split, which)
    console.print(f"moved {moved:,} queries from {split} to {name}" if moved else "moved before; nothing to do")


@with_settings
def mine(
    workspace: WorkspaceOption,
    split: Annotated[
        list[str],
        typer.Option(
            metavar="SPLIT",
            help="Search for the queries of this split. Repeatable.",
            default_factory=lambda: ["train"],
            show_default="train",
        ),
    ],
    system: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Retriever: bm25, random (passages drawn from the whole collection), or with --student a new name for "
            "its lists.",
        ),
    ] = "bm25",
    student: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Search with this student: a student of the workspace, a directory or a Hub name.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(metavar="NAME", help="Arithmetic of the student: float32, bfloat16 or float16.")
    ] = "float32",
    k: Annotated[int, typer.Option(metavar="N", help="Number of passages kept per query.")] = 100,
    max_queries: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Search for this many judged queries of each split, the same sample every time.",
            show_default="all queries",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the passages that --system random draws.")] = 0,
    processes: Processes = None,
    *,
    bm25: Bm25Settings,
) -> None:
    """Retrieve the top k passages for every query of the splits."""
    from jobs.commands.summary import run_summary
    from jobs.terminal.console import console
    from jobs.terminal.progress import progress
    from pipeline.errors import UsageError
    from pipeline.retrieval.mining import mine as run
    from pipeline.retrieval.retrievers import Bm25Retriever, RandomRetriever
    from pipeline.storage.workspace import Workspace

    ws = Workspace.open(workspace)
    with (
        run_summary(ws, "mine") as facts,
        progress("index", "passages") as indexed,
        progress("search", "queries") as searched,
    ):
        retriever: Retriever
        if student is not None:
            retriever = _student_retriever(ws, system, student, dtype, indexed.set)
        elif system == "bm25":
            retriever = Bm25Retriever(bm25, processes or os.cpu_count() or 1, indexed.set)
        elif system == "random":
            retriever = RandomRetriever(seed)
        else:
            raise UsageError(
                f"no retriever {system!r}",
                expected="--system bm25 or random, or a new name with --student",
                found=system,
            )
        splits = list(dict.fromkeys(split))
        mined = run(ws, splits, k, retriever, max_queries=max_queries, on_search=searched.set)
        facts["splits"] = [vars(result) for result in mined]
    for result in mined:
        kept = f" ({result.kept_parts} of {result.parts} parts were complete)" if result.kept_parts else ""
        console.print(f"{result.split}: {result.queries:,} queries, top {k}{kept}")


def _student_retriever(
    workspace: Workspace, system: str, student: str, dtype: str, on_index: Callable[[int, int], None]
) -> Retriever:
    """A student as retriever, on the passages that `encode` stored if it did."""
    from jobs.models.checkpoints import locate_checkpoint
    from jobs.models.stored_passages import find_stored
    from jobs.ranking.student_retriever import StudentRetriever
    from pipeline.errors import UsageError

    if system in ("bm25", "random"):
        raise UsageError("a student's lists need a new name", todo="pass --system NAME")
    checkpoint, arithmetic = locate_checkpoint(workspace, student), cast(Any, dtype)
    # `encode` stores passages under the name of the workspace's student; any other student is encoded under --system.
    name = student if student in workspace.names("students") else system
    stored = find_stored(workspace, name, checkpoint, arithmetic)
    return StudentRetriever(workspace, system, checkpoint, arithmetic, stored, on_index)


@with_settings
def build_pairs(workspace: WorkspaceOption, settings: PairSettings, stale: StaleSettings) -> None:
    """Merge judgements and retrieved lists into shards of pairs."""
    from jobs.commands.summary import run_summary
    from jobs.terminal.console import console
    from jobs.terminal.progress import progress
    from pipeline.scores.pairs import build_pairs as run
    from pipeline.storage.workspace import Workspace

    ws = Workspace.open(workspace, stale_ok=stale.stale_ok)
    with run_summary(ws, "build-pairs") as facts, progress("pairs", "shards") as meter:
        built = run(ws, settings.pairs_per_shard, all_judged=settings.all_judged, on_progress=meter.set)
        facts |= vars(built)
    state = "already up to date: " if built.unchanged else ""
    console.print(
        f"{state}{built.pairs:,} pairs of {built.queries:,} queries in {built.shards:,} shards, {built.judged:,} judged"
    )
    if built.unmined_judgements:
        console.print(
            f"left out {built.unmined_judgements:,} judgements of queries that were not mined (--all-judged keeps them)"
        )


def status(
    workspace: WorkspaceOption,
    watch: Annotated[
        float | None,
        typer.Option(
            min=0.5, metavar="SECONDS", help="Update the table every so many seconds, until Ctrl-C.", show_default=False
        ),
    ] = None,
) -> None:
    """Show which stages are done, missing, incomplete or stale."""
    from jobs.checks.status import workspace_status
    from jobs.commands.show import show_status, watch_status
    from pipeline.storage.workspace import Workspace

    ws = Workspace.open(workspace)
    if watch is None:
        show_status(workspace_status(ws))
    else:
        watch_status(lambda: workspace_status(ws), watch)
