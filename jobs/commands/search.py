"""Commands that search: encode, search."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from jobs.commands.options import StaleSettings, WorkspaceOption, with_settings
from jobs.ranking.settings import EncodeSettings, SearchSettings


@with_settings
def encode(
    workspace: WorkspaceOption,
    student: Annotated[
        str,
        typer.Option(metavar="NAME", help="Student of the workspace (NAME), or any other (NAME=CHECKPOINT)."),
    ],
    settings: EncodeSettings,
) -> None:
    """Encode all passages with a student and store the result. Only new and stale passages are encoded."""
    from jobs.commands.summary import run_summary
    from jobs.models.checkpoints import named_student
    from jobs.ranking.encode import encode_passages
    from jobs.terminal.console import console
    from jobs.terminal.progress import progress
    from pipeline.storage.workspace import Workspace

    ws = Workspace.open(workspace)
    with (
        run_summary(ws, "encode") as facts,
        progress("tokenise", "texts") as tokens,
        progress(f"encode {student}", "passages") as meter,
    ):
        name, checkpoint = named_student(ws, student)
        done = encode_passages(
            ws,
            name,
            checkpoint,
            dtype=settings.dtype,
            storage=settings.storage,
            on_tokens=tokens.set,
            on_progress=meter.set,
        )
        facts |= vars(done)
    kept = f", {done.kept_shards:,} of {done.shards:,} shards were complete" if done.kept_shards else ""
    console.print(
        f"encoded/{name}: {done.passages:,} passages, {done.new_passages:,} of them new, {done.gigabytes:.3g} GB in "
        f"{done.storage}{kept}"
    )


@with_settings
def search(
    workspace: WorkspaceOption,
    query: Annotated[
        list[str],
        typer.Argument(help="Query to search for. Repeatable.", default_factory=list, show_default=False),
    ],
    queries: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="File with one query per line; - reads standard input.", show_default=False),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object with the whole texts instead of tables.")
    ] = False,
    *,
    stale: StaleSettings,
    settings: SearchSettings,
) -> None:
    """Search the collection by a student or BM25; a student and a teacher can re-rank the result."""
    from jobs.commands.show import show_answers
    from jobs.commands.summary import run_summary
    from jobs.ranking.search import search as run
    from jobs.terminal.console import console
    from jobs.terminal.progress import progress
    from pipeline.storage.workspace import Workspace

    ws = Workspace.open(workspace, stale_ok=stale.stale_ok)
    texts = [*query, *(_lines(queries) if queries else [])]
    with run_summary(ws, "search") as facts, progress("index for BM25", "passages") as meter:
        searched = run(ws, settings, texts, meter.set)
        facts |= {"queries": len(texts), "loading_seconds": searched.loading_seconds, "seconds": searched.seconds}
    if as_json:
        answers = [
            {"query": answer.query, "hits": [hit._asdict() for hit in answer.hits]} for answer in searched.answers
        ]
        shown = {**facts, "score": searched.score, "notes": searched.notes, "answers": answers}
        print(json.dumps(shown, ensure_ascii=False))
        return
    for note in searched.notes:
        console.print(note, style="yellow")
    show_answers(searched)


def _lines(source: str) -> list[str]:
    """Queries of a file or of standard input, without blank lines.

    Raises:
        InputError: the file cannot be read.
    """
    from pipeline.errors import InputError

    try:
        text = sys.stdin.read() if source == "-" else Path(source).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "cannot read the queries", where=source, expected="a text file, one query per line", found=error
        ) from error
    return [line.strip() for line in text.splitlines() if line.strip()]
