"""Commands for searching: encode, search."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from jobs.commands.options import WorkspaceOption


def encode(
    workspace: WorkspaceOption,
    student: Annotated[str, typer.Option(help="NAME of the workspace, or NAME=CHECKPOINT.")],
    dtype: Annotated[
        str, typer.Option(help="Arithmetic: float32, bfloat16 or float16; a search then uses the same.")
    ] = "float32",
    storage: Annotated[
        str | None,
        typer.Option(
            help="How values are kept: float32, or float16 in half the room. [float16 for vectors of each token]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Encode all passages with a student and keep the result; only what is new or stale."""
    from jobs.commands.summary import run_summary
    from jobs.models.checkpoints import named_student
    from jobs.ranking.encode import encode_passages
    from jobs.terminal.console import console
    from jobs.terminal.progress import progress
    from pipeline.errors import UsageError
    from pipeline.storage.workspace import Workspace

    if storage not in (None, "float32", "float16"):
        raise UsageError("unknown --storage", expected="float32 or float16", found=storage)
    ws = Workspace.open(workspace)
    with (
        run_summary(ws, "encode") as facts,
        progress("tokenise", "texts") as tokens,
        progress(f"encode {student}", "passages") as meter,
    ):
        name, where = named_student(ws, student)
        options: dict[str, Any] = {"dtype": dtype, "storage": storage}
        done = encode_passages(ws, name, where, **options, on_tokens=tokens.set, on_progress=meter.set)
        facts |= vars(done)
    kept = f", {done.kept_shards:,} of {done.shards:,} shards were there already" if done.kept_shards else ""
    console.print(
        f"encoded/{name}: {done.passages:,} passages, {done.new_passages:,} of them new, {done.gigabytes:.3g} GB in "
        f"{done.storage}{kept}"
    )


def search(
    workspace: WorkspaceOption,
    query: Annotated[
        list[str], typer.Argument(help="What to search for. Repeatable.", default_factory=list, show_default=False)
    ],
    queries: Annotated[
        str | None, typer.Option(help="A file with a query a line; - is standard input.", show_default=False)
    ] = None,
    student: Annotated[
        str | None,
        typer.Option(help="Student that searches, or re-ranks with --first: NAME or NAME=CHECKPOINT."),
    ] = None,
    first: Annotated[
        str | None, typer.Option(help="bm25: find candidates by BM25. [the student searches]", show_default=False)
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(min=1, help="Passages that BM25 hands to the student. [1000]", show_default=False)
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="Cross-encoder that re-ranks at the end: NAME, a directory, or NAME=CHECKPOINT."),
    ] = None,
    teacher_candidates: Annotated[int, typer.Option(min=1, help="Passages of each query that it reads.")] = 50,
    k: Annotated[int, typer.Option(min=1, help="Passages shown.")] = 10,
    probability: Annotated[
        bool, typer.Option("--probability", help="Scores from 0 to 1: the sigmoid of a cross-encoder's logit.")
    ] = False,
    dtype: Annotated[str, typer.Option(help="Arithmetic of cross-encoders.")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output, texts whole.")] = False,
) -> None:
    """Search the collection: by a student or BM25, re-ranked by a student and a teacher if so wished."""
    from jobs.commands.show import show_answers
    from jobs.commands.summary import run_summary
    from jobs.ranking.search import SearchSettings
    from jobs.ranking.search import search as run
    from jobs.terminal.console import console
    from jobs.terminal.progress import progress
    from pipeline.storage.workspace import Workspace

    ws = Workspace.open(workspace)
    settings = SearchSettings(student, first, teacher, candidates, teacher_candidates, k, probability, cast(Any, dtype))
    asked = [*query, *(_lines(queries) if queries else [])]
    with run_summary(ws, "search") as facts, progress("index for BM25", "passages") as meter:
        found = run(ws, settings, asked, meter.set)
        facts |= {"queries": len(asked), "loading_seconds": found.loading_seconds, "seconds": found.seconds}
    if as_json:
        answers = [{"query": answer.query, "hits": [hit._asdict() for hit in answer.hits]} for answer in found.answers]
        print(json.dumps({**facts, "score": found.score, "notes": found.notes, "answers": answers}, ensure_ascii=False))
        return
    for note in found.notes:
        console.print(note, style="yellow")
    show_answers(found)


def _lines(source: str) -> list[str]:
    """Queries of a file, blank lines left out.

    Raises:
        InputError: it cannot be read.
    """
    from pipeline.errors import InputError

    try:
        text = sys.stdin.read() if source == "-" else Path(source).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("queries cannot be read", where=source, found=error) from error
    return [line.strip() for line in text.splitlines() if line.strip()]
