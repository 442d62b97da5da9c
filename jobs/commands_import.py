"""Commands that bring published data into a workspace: import hard-negatives, scores, run, top1000, triples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.options import WorkspaceOption

if TYPE_CHECKING:
    from pipeline.import_lists import ListOptions, Source

FileArgument = Annotated[Path, typer.Argument(help="File, plain or .gz.", show_default=False)]
SystemOption = Annotated[str, typer.Option(help="Name of the lists, under retrieved/.", show_default=False)]
PrefixOption = Annotated[str, typer.Option(help="Put before the name of each system.")]
PositivesOption = Annotated[
    bool, typer.Option("--add-positives", help="Make the file's positives judgements of grade 1.")
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Fail at the first unknown id (otherwise counted), and at contradictions.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what has this name but another origin.")]


def import_hard_negatives(
    file: FileArgument,
    workspace: WorkspaceOption,
    prefix: PrefixOption = "",
    add_positives: PositivesOption = False,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Import msmarco-hard-negatives.jsonl as the lists of all systems it names."""
    from pipeline.hard_negatives import read_lists
    from pipeline.import_lists import ListOptions, file_source

    source = file_source(file, "hard-negatives", read_lists)
    _import_lists(workspace, source, ListOptions(prefix, add_positives, strict, overwrite))


def import_run(
    file: FileArgument,
    system: SystemOption,
    workspace: WorkspaceOption,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Import a run (TREC, or MS MARCO's query, passage, rank) as a system's lists."""
    from pipeline.candidate_files import read_run_rows
    from pipeline.import_lists import ListOptions, one_list

    _import_lists(workspace, one_list(file, "run", system, read_run_rows), ListOptions("", False, strict, overwrite))


def import_top1000(
    file: FileArgument,
    system: SystemOption,
    workspace: WorkspaceOption,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Import a top-1000 file (query id, passage id, query, passage) as candidates without a rank."""
    from pipeline.candidate_files import read_top1000
    from pipeline.import_lists import ListOptions, one_list

    _import_lists(workspace, one_list(file, "top1000", system, read_top1000), ListOptions("", False, strict, overwrite))


def import_triples(
    file: FileArgument,
    system: SystemOption,
    workspace: WorkspaceOption,
    add_positives: PositivesOption = False,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Import triples of ids (qidpidtriples: query, positive, negative) as candidates without a rank."""
    from pipeline.candidate_files import read_id_triples
    from pipeline.import_lists import ListOptions, one_list

    source = one_list(file, "triples", system, read_id_triples)
    _import_lists(workspace, source, ListOptions("", add_positives, strict, overwrite))


def import_scores(
    file: Annotated[Path, typer.Argument(help="File, plain or .gz, or directory of Parquet.", show_default=False)],
    teacher: Annotated[str, typer.Option(help="Name of the teacher, under scores/.", show_default=False)],
    workspace: WorkspaceOption,
    form: Annotated[
        str | None,
        typer.Option(help="pickle, kd, parquet, lists, colbert, tevatron or run. [found out]", show_default=False),
    ] = None,
    as_pairs: Annotated[bool, typer.Option("--as-pairs", help="Make the file's pairs those of the workspace.")] = False,
    pairs_per_shard: Annotated[int, typer.Option(min=1, help="With --as-pairs: about so many in a shard.")] = 500_000,
    add_positives: PositivesOption = False,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Import published scores as a teacher that build-triples can average with others."""
    from jobs.show import console
    from jobs.summary import run_summary
    from pipeline.import_scores import ScoreOptions
    from pipeline.import_scores import import_scores as run
    from pipeline.workspace import Workspace

    options = ScoreOptions(form, as_pairs, pairs_per_shard, add_positives, strict, overwrite)
    ws = Workspace.open(workspace)
    with run_summary(ws, "import-scores") as facts:
        found = run(ws, file, teacher, options)
        facts |= {**vars(found), "counts": vars(found.counts)}
    if found.unchanged:
        console.print("these scores are in the workspace already; nothing to do")
        return
    console.print(f"scores/{teacher}: {found.pairs:,} pairs, from {found.counts.rows:,} rows of form {found.form}")
    if found.unused:
        console.print(f"{found.unused:,} scores are of pairs that the workspace does not have")
    if found.judgements:
        console.print(f"{found.judgements:,} positives added to the judgements")
    for text, count in found.counts.lines():
        console.print(f"{count:,} {text}")


def _import_lists(location: str, source: Source, options: ListOptions) -> None:
    from jobs.show import console
    from jobs.summary import run_summary
    from pipeline.import_lists import import_lists as run
    from pipeline.workspace import Workspace

    ws = Workspace.open(location)
    with run_summary(ws, "import-lists") as facts:
        found = run(ws, source, options)
        facts |= {**vars(found), "counts": vars(found.counts)}
    if found.unchanged:
        console.print("these lists are in the workspace already; nothing to do")
        return
    for system, rows in found.systems.items():
        console.print(f"retrieved/{system}: {rows:,} rows")
    if found.judgements:
        console.print(f"{found.judgements:,} positives added to the judgements")
    for text, count in found.counts.lines():
        console.print(f"{count:,} {text}")
