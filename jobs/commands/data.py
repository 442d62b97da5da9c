"""Commands on plain data: import msmarco, hold-out, mine, build-pairs, status."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from jobs.commands.options import Processes, WorkspaceOption, split_files


def import_msmarco(
    queries: Annotated[
        list[str],
        typer.Option(help="SPLIT=FILE: query id, text. Repeatable.", default_factory=list, show_default=False),
    ],
    qrels: Annotated[
        list[str],
        typer.Option(
            help="SPLIT=FILE: query id, 0, passage id, grade (MS MARCO or TREC). Repeatable.",
            default_factory=list,
            show_default=False,
        ),
    ],
    workspace: WorkspaceOption,
    collection: Annotated[
        Path | None, typer.Option(help="Passage id, text; may be left out once there is one.")
    ] = None,
) -> None:
    """Import MS MARCO files: tab-separated, no header, plain or .gz. New rows are added, none renumbered."""
    from jobs.commands.show import show_added
    from jobs.commands.summary import run_summary
    from pipeline.errors import UsageError
    from pipeline.imports.msmarco import import_msmarco as run
    from pipeline.storage.workspace import Workspace

    if not (collection or queries or qrels):
        raise UsageError("nothing to import", todo="give --collection, --queries or --qrels")
    files = split_files("--queries", queries), split_files("--qrels", qrels)
    ws = Workspace.open(workspace, create=True)
    with run_summary(ws, "import-msmarco") as facts:
        added = run(ws, collection, *files)
        facts |= vars(added)
    show_added(added)


def hold_out(
    name: Annotated[str, typer.Argument(help="Name of the new split.", show_default=False)],
    workspace: WorkspaceOption,
    queries: Annotated[
        int | None,
        typer.Option(min=1, help="So many judged queries move to it, a stable sample.", show_default=False),
    ] = None,
    ids: Annotated[
        Path | None,
        typer.Option(help="These queries move to it: a file of their ids, one a line.", show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(help="Split they are taken from.")] = "train",
) -> None:
    """Put part of a split's queries aside as a split of its own, to choose settings on."""
    from jobs.commands.summary import run_summary
    from jobs.terminal.console import console
    from pipeline.collection.hold_out import hold_out as run
    from pipeline.errors import UsageError
    from pipeline.storage.workspace import Workspace

    which = queries if ids is None else ids
    if which is None or (queries is not None and ids is not None):
        raise UsageError("which queries?", expected="one of the two", todo="give --queries or --ids")
    ws = Workspace.open(workspace)
    with run_summary(ws, "hold-out") as facts:
        facts["moved"] = moved = run(ws, name, split, which)
    console.print(f"{moved:,} queries moved from {split} to {name}" if moved else "done before; nothing to do")


def mine(
    workspace: WorkspaceOption,
    split: Annotated[
        list[str],
        typer.Option(
            help="Split whose queries are searched. Repeatable. [train]",
            default_factory=lambda: ["train"],
            show_default=False,
        ),
    ],
    system: Annotated[
        str, typer.Option(help="bm25; random passages of the whole collection; or with --student a name of your own.")
    ] = "bm25",
    student: Annotated[
        str | None,
        typer.Option(help="Search with a student of the workspace, a directory or a Hub name.", show_default=False),
    ] = None,
    dtype: Annotated[str, typer.Option(help="Arithmetic of the student.")] = "float32",
    k: Annotated[int, typer.Option(help="Passages kept for each query.")] = 100,
    max_queries: Annotated[
        int | None, typer.Option(min=1, help="A stable sample of that many judged queries of each split.")
    ] = None,
    k1: Annotated[float, typer.Option(help="BM25: saturation of term frequency.")] = 0.9,
    b: Annotated[float, typer.Option(help="BM25: weight of passage length.")] = 0.4,
    seed: Annotated[int, typer.Option(help="Seed of the draw, for random.")] = 0,
    processes: Processes = None,
) -> None:
    """Retrieve the top k passages for every query of the splits."""
    from jobs.commands.summary import run_summary
    from jobs.terminal.console import console
    from jobs.terminal.progress import progress
    from pipeline.errors import UsageError
    from pipeline.retrieval.bm25 import Bm25Settings
    from pipeline.retrieval.mining import mine as run
    from pipeline.retrieval.retrievers import Bm25Retriever, RandomRetriever, Retriever
    from pipeline.storage.workspace import Workspace

    ws = Workspace.open(workspace)
    with (
        run_summary(ws, "mine") as facts,
        progress("index", "passages") as indexed,
        progress("search", "queries") as searched,
    ):
        retriever: Retriever
        if student is not None:
            from jobs.models.checkpoints import locate_checkpoint
            from jobs.models.stored_passages import find_stored
            from jobs.ranking.student_retriever import StudentRetriever

            if system in ("bm25", "random"):
                raise UsageError("a student's lists need a name of their own", todo="pass --system NAME")
            found, kind = locate_checkpoint(ws, student), cast(Any, dtype)
            # What `encode` made stands under the name of a student of the workspace; others may have been given one.
            name = student if student in ws.names("students") else system
            retriever = StudentRetriever(ws, system, found, kind, find_stored(ws, name, found, kind), indexed.set)
        elif system == "bm25":
            retriever = Bm25Retriever(Bm25Settings(k1, b), processes or os.cpu_count() or 1, indexed.set)
        elif system == "random":
            retriever = RandomRetriever(seed)
        else:
            raise UsageError(
                f"no retriever {system!r}", expected="bm25, random, or any name with --student", found=system
            )
        splits = list(dict.fromkeys(split))
        mined = run(ws, splits, k, retriever, max_queries=max_queries, on_search=searched.set)
        facts["splits"] = [vars(one) for one in mined]
    for one in mined:
        kept = f" ({one.kept_parts} of {one.parts} parts were there already)" if one.kept_parts else ""
        console.print(f"{one.split}: {one.queries:,} queries, top {k}{kept}")


def build_pairs(
    workspace: WorkspaceOption,
    pairs_per_shard: Annotated[
        int, typer.Option(min=1, help="About that many pairs in a shard; a query is never cut.")
    ] = 500_000,
    all_judged: Annotated[bool, typer.Option(help="Also judged pairs of queries that were not mined.")] = False,
) -> None:
    """Unite judgements and retrieved lists into pair shards."""
    from jobs.commands.summary import run_summary
    from jobs.terminal.console import console
    from jobs.terminal.progress import progress
    from pipeline.scores.pairs import build_pairs as run
    from pipeline.storage.workspace import Workspace

    ws = Workspace.open(workspace)
    with run_summary(ws, "build-pairs") as facts, progress("pairs", "shards") as meter:
        built = run(ws, pairs_per_shard, all_judged=all_judged, on_progress=meter.set)
        facts |= vars(built)
    state = "already up to date: " if built.unchanged else ""
    console.print(
        f"{state}{built.pairs:,} pairs of {built.queries:,} queries in {built.shards:,} shards, {built.judged:,} judged"
    )
    if built.unmined_judgements:
        console.print(
            f"{built.unmined_judgements:,} judgements of queries not mined left out (--all-judged keeps them)"
        )


def status(
    workspace: WorkspaceOption,
    watch: Annotated[
        float | None, typer.Option(min=0.5, help="Look again every so many seconds, until Ctrl-C.", show_default=False)
    ] = None,
) -> None:
    """Show what is done, missing and stale."""
    from jobs.checks.status import workspace_status
    from jobs.commands.show import show_status, watch_status
    from pipeline.storage.workspace import Workspace

    ws = Workspace.open(workspace)
    if watch is None:
        show_status(workspace_status(ws))
    else:
        watch_status(lambda: workspace_status(ws), watch)
