"""Commands that bring published data into a workspace: lists, scores, whole data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.commands.options import WorkspaceOption
from pipeline.errors import UsageError
from pipeline.fingerprint import digest_json
from pipeline.names import check_name

if TYPE_CHECKING:
    from pipeline.imports.intake import CandidateBatch
    from pipeline.imports.lists import CandidateSource, ListOptions
    from pipeline.imports.scores import ImportedScores

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
    from pipeline.imports.hard_negatives import read_lists
    from pipeline.imports.lists import ListOptions, file_source

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
    from pipeline.imports.candidate_files import read_run_rows

    _import_one_list(workspace, file, "run", system, read_run_rows, strict, overwrite)


def import_top1000(
    file: FileArgument,
    system: SystemOption,
    workspace: WorkspaceOption,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Import a top-1000 file (query id, passage id, query, passage) as candidates without a rank."""
    from pipeline.imports.candidate_files import read_top1000

    _import_one_list(workspace, file, "top1000", system, read_top1000, strict, overwrite)


def import_triples(
    file: FileArgument,
    system: SystemOption,
    workspace: WorkspaceOption,
    texts: Annotated[
        bool, typer.Option("--texts", help="The file holds texts, not ids (triples.train.small): found by content.")
    ] = False,
    add_positives: PositivesOption = False,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Import triples (qidpidtriples: query, positive, negative) as candidates without a rank."""
    from dataclasses import replace

    from pipeline.imports.candidate_files import read_id_triples, read_text_triples
    from pipeline.imports.lists import ListOptions, system_source

    kind, read = ("text triples", read_text_triples) if texts else ("triples", read_id_triples)
    source = replace(system_source(file, kind, system, read), by_text=texts)
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
    from jobs.commands.summary import run_summary
    from pipeline.imports.scores import ScoreOptions
    from pipeline.imports.scores import import_scores as run
    from pipeline.storage.workspace import Workspace

    options = ScoreOptions(form, as_pairs, pairs_per_shard, add_positives, strict, overwrite)
    ws = Workspace.open(workspace)
    with run_summary(ws, "import-scores") as facts:
        found = run(ws, file, teacher, options)
        facts |= {**vars(found), "counts": vars(found.counts)}
    _show_scores(teacher, found)


def import_beir(
    directory: Annotated[
        Path, typer.Argument(help="With corpus.jsonl, queries.jsonl and qrels/, plain or .gz.", show_default=False)
    ],
    workspace: WorkspaceOption,
) -> None:
    """Import a data set in BEIR's form; a query is in the splits that judge it."""
    from jobs.commands.show import show_added
    from jobs.commands.summary import run_summary
    from pipeline.imports.beir import beir_collection
    from pipeline.imports.collection_source import import_collection
    from pipeline.storage.workspace import Workspace

    ws = Workspace.open(workspace, create=True)
    with run_summary(ws, "import-beir") as facts:
        added = import_collection(ws, beir_collection(directory))
        facts |= vars(added)
    show_added(added)


def import_ir_dataset(
    name: Annotated[str, typer.Argument(help="Id of ir_datasets, as msmarco-passage/train.", show_default=False)],
    workspace: WorkspaceOption,
    split: Annotated[str, typer.Option(help="Split of its queries and judgements.")] = "train",
) -> None:
    """Import documents, queries and judgements by ir_datasets (to be installed beside prep)."""
    from jobs.commands.show import show_added
    from jobs.commands.summary import run_summary
    from pipeline.imports.collection_source import import_collection
    from pipeline.imports.irds import ir_collection, load
    from pipeline.storage.workspace import Workspace

    dataset = load(name)
    ws = Workspace.open(workspace, create=True)
    with run_summary(ws, "import-ir-dataset") as facts:
        added = import_collection(ws, ir_collection(name, dataset, split))
        facts |= vars(added)
    show_added(added)


def import_hub(
    name: Annotated[str, typer.Argument(help="Data set on the hub, or a directory with one.", show_default=False)],
    workspace: WorkspaceOption,
    config: Annotated[str | None, typer.Option(help="Configuration.", show_default=False)] = None,
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "train",
    revision: Annotated[str | None, typer.Option(help="Commit, branch or tag.", show_default=False)] = None,
    kind: Annotated[
        str | None,
        typer.Option("--as", help="scores, passages, queries or triples. [by its columns]", show_default=False),
    ] = None,
    queries_split: Annotated[str, typer.Option(help="Split that queries go to.")] = "train",
    teacher: Annotated[str | None, typer.Option(help="Scores: name of the teacher.", show_default=False)] = None,
    system: Annotated[str | None, typer.Option(help="Triples: name of the lists.", show_default=False)] = None,
    as_pairs: Annotated[bool, typer.Option("--as-pairs", help="Scores: their pairs become the workspace's.")] = False,
    add_positives: PositivesOption = False,
    strict: StrictOption = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Import passages, queries, scores or triples of ids from a Hugging Face data set, as a stream."""
    from jobs.commands.show import show_added
    from jobs.commands.summary import run_summary
    from pipeline.imports.collection_source import import_collection
    from pipeline.imports.hub import KINDS, HubTable
    from pipeline.imports.lists import CandidateSource, ListOptions
    from pipeline.imports.scores import ScoreOptions, import_score_source
    from pipeline.storage.workspace import Workspace

    if kind is not None and kind not in KINDS:
        raise UsageError("unknown --as", expected=", ".join(KINDS), found=kind)
    table = HubTable(name, config, split, revision)
    kind = kind or table.kind
    if kind == "passages" or kind == "queries":
        ws = Workspace.open(workspace, create=True)
        source = table.collection(kind, queries_split)
        with run_summary(ws, "import-hub") as facts:
            added = import_collection(ws, source)
            facts |= vars(added)
        show_added(added)
    elif kind == "triples":
        named = _given("--system", system)
        candidates = CandidateSource(
            table.where, digest_json([table.content, named]), partial(_one_list, named, table.triples), "row"
        )
        _import_lists(workspace, candidates, ListOptions("", add_positives, strict, overwrite))
    else:
        named = _given("--teacher", teacher)
        candidates = CandidateSource(table.where, table.content, partial(_one_list, named, table.scores), "row")
        options = ScoreOptions(None, as_pairs, 500_000, add_positives, strict, overwrite)
        ws = Workspace.open(workspace)
        with run_summary(ws, "import-hub") as facts:
            found = import_score_source(ws, candidates, named, "hub", options)
            facts |= {**vars(found), "counts": vars(found.counts)}
        _show_scores(named, found)


def _given(option: str, name: str | None) -> str:
    if name is None:
        raise UsageError(f"{option} is missing", todo="name what is imported")
    return check_name(option.removeprefix("--"), name)


def _one_list(
    name: str, read: Callable[[], Iterator[CandidateBatch]], systems: dict[str, int]
) -> Iterator[CandidateBatch]:
    systems[name] = 0
    return read()


def _show_scores(teacher: str, found: ImportedScores) -> None:
    from jobs.terminal.console import console

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


def _import_one_list(
    location: str,
    file: Path,
    kind: str,
    system: str,
    read: Callable[[Path], Iterator[CandidateBatch]],
    strict: bool,
    overwrite: bool,
) -> None:
    from pipeline.imports.lists import ListOptions, system_source

    _import_lists(location, system_source(file, kind, system, read), ListOptions("", False, strict, overwrite))


def _import_lists(location: str, source: CandidateSource, options: ListOptions) -> None:
    from jobs.commands.summary import run_summary
    from jobs.terminal.console import console
    from pipeline.imports.lists import import_lists as run
    from pipeline.storage.workspace import Workspace

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
