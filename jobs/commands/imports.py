"""Commands that import published data into a workspace: lists, scores, whole data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.commands.options import Options, WorkspaceOption, with_settings
from pipeline.errors import UsageError
from pipeline.fingerprint import digest_json
from pipeline.imports.settings import HubOptions, ListOptions, ScoreOptions
from pipeline.names import check_name

if TYPE_CHECKING:
    from pipeline.imports.intake import CandidateBatch
    from pipeline.imports.lists import CandidateSource
    from pipeline.imports.scores import ImportedScores

FileArgument = Annotated[Path, typer.Argument(help="File to import, plain or compressed.", show_default=False)]
SystemOption = Annotated[
    str, typer.Option(metavar="NAME", help="Name of the lists, in retrieved/ of the workspace.", show_default=False)
]
ListChecks = Annotated[ListOptions, Options(without=("prefix", "add_positives"))]


@with_settings
def import_hard_negatives(file: FileArgument, workspace: WorkspaceOption, options: ListOptions) -> None:
    """Import msmarco-hard-negatives.jsonl as the lists of all systems in it."""
    from pipeline.imports.hard_negatives import read_lists
    from pipeline.imports.lists import file_source

    _import_lists(workspace, file_source(file, "hard-negatives", read_lists), options)


@with_settings
def import_run(file: FileArgument, system: SystemOption, workspace: WorkspaceOption, options: ListChecks) -> None:
    """Import a run (TREC, or MS MARCO's query, passage, rank) as a system's lists."""
    from pipeline.imports.candidate_files import read_run_rows
    from pipeline.imports.lists import system_source

    _import_lists(workspace, system_source(file, "run", system, read_run_rows), options)


@with_settings
def import_top1000(file: FileArgument, system: SystemOption, workspace: WorkspaceOption, options: ListChecks) -> None:
    """Import a top-1000 file (query id, passage id, query, passage) as candidates without ranks."""
    from pipeline.imports.candidate_files import read_top1000
    from pipeline.imports.lists import system_source

    _import_lists(workspace, system_source(file, "top1000", system, read_top1000), options)


@with_settings
def import_triples(
    file: FileArgument,
    system: SystemOption,
    workspace: WorkspaceOption,
    texts: Annotated[
        bool,
        typer.Option(
            "--texts", help="The file holds texts instead of ids (triples.train.small); ids are looked up by text."
        ),
    ] = False,
    *,
    options: Annotated[ListOptions, Options(without=("prefix",))],
) -> None:
    """Import triples (qidpidtriples: query, positive, negative) as candidates without ranks."""
    from dataclasses import replace

    from pipeline.imports.candidate_files import read_id_triples, read_text_triples
    from pipeline.imports.lists import system_source

    kind, read = ("text triples", read_text_triples) if texts else ("triples", read_id_triples)
    _import_lists(workspace, replace(system_source(file, kind, system, read), by_text=texts), options)


@with_settings
def import_scores(
    file: Annotated[
        Path,
        typer.Argument(
            help="File to import, plain or compressed, or a directory of Parquet files.", show_default=False
        ),
    ],
    teacher: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the teacher, in scores/ of the workspace.", show_default=False)
    ],
    workspace: WorkspaceOption,
    options: ScoreOptions,
) -> None:
    """Import published scores as those of a teacher, for the ensembles of build-triples."""
    from jobs.commands.summary import run_summary
    from pipeline.imports.scores import import_scores as run
    from pipeline.storage.workspace import Workspace

    ws = Workspace.open(workspace)
    with run_summary(ws, "import-scores") as facts:
        imported = run(ws, file, teacher, options)
        facts |= {**vars(imported), "counts": vars(imported.counts)}
    _show_scores(teacher, imported)


def import_beir(
    directory: Annotated[
        Path,
        typer.Argument(
            help="Directory with corpus.jsonl, queries.jsonl and qrels/, plain or compressed.", show_default=False
        ),
    ],
    workspace: WorkspaceOption,
) -> None:
    """Import a data set in BEIR's format. A query belongs to every split that has judgements for it."""
    from jobs.commands.show import show_added
    from jobs.commands.summary import run_summary
    from pipeline.imports.beir import beir_collection
    from pipeline.imports.collection_source import import_collection
    from pipeline.storage.workspace import Workspace

    ws = Workspace.open(workspace, create=True)
    with run_summary(ws, "import-beir") as facts:
        source = beir_collection(directory)
        added = import_collection(ws, source)
        facts |= {**vars(added), "unused_columns": list(source.unused_columns)}
    show_added(added, source.unused_columns)


def import_ir_dataset(
    name: Annotated[str, typer.Argument(help="Id of ir_datasets, such as msmarco-passage/train.", show_default=False)],
    workspace: WorkspaceOption,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="Split for its queries and judgements.")] = "train",
) -> None:
    """Import documents, queries and judgements from ir_datasets (install prep with the extra: ir)."""
    from jobs.commands.show import show_added
    from jobs.commands.summary import run_summary
    from pipeline.imports.collection_source import import_collection
    from pipeline.imports.irds import ir_collection, load
    from pipeline.storage.workspace import Workspace

    dataset = load(name)
    ws = Workspace.open(workspace, create=True)
    with run_summary(ws, "import-ir-dataset") as facts:
        source = ir_collection(name, dataset, split)
        added = import_collection(ws, source)
        facts |= {**vars(added), "unused_columns": list(source.unused_columns)}
    show_added(added, source.unused_columns)


@with_settings
def import_hub(
    name: Annotated[
        str, typer.Argument(help="Data set on the Hub, or a directory with a data set.", show_default=False)
    ],
    workspace: WorkspaceOption,
    queries_split: Annotated[
        str, typer.Option(metavar="SPLIT", help="For queries and judgements: split of the workspace.")
    ] = "train",
    teacher: Annotated[
        str | None, typer.Option(metavar="NAME", help="For scores: name of the teacher.", show_default=False)
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="NAME", help="For triples and lists: name of the lists.", show_default=False)
    ] = None,
    *,
    part: HubOptions,
    pairs: Annotated[dict[str, Any], Options(ScoreOptions, only=("as_pairs",))],
    options: Annotated[ListOptions, Options(without=("prefix",))],
) -> None:
    """Import passages, queries, judgements, scores, triples or lists from a Hugging Face data set, as a stream."""
    from jobs.commands.show import show_added
    from jobs.commands.summary import run_summary
    from pipeline.imports.collection_source import import_collection
    from pipeline.imports.hub.data_set import HubTable
    from pipeline.imports.lists import CandidateSource
    from pipeline.imports.scores import import_score_source
    from pipeline.storage.workspace import Workspace

    table = HubTable(name, part.config, part.split, part.revision, part.kind, part.texts)
    kind = table.kind
    if kind == "passages" or kind == "queries" or kind == "qrels":
        ws = Workspace.open(workspace, create=True)
        source = table.collection(kind, queries_split)
        with run_summary(ws, "import-hub") as facts:
            added = import_collection(ws, source)
            facts |= {**vars(added), "unused_columns": list(source.unused_columns)}
        show_added(added, source.unused_columns)
    elif kind == "triples" or kind == "lists":
        lists = _required("--system", system)
        content = digest_json([table.content, lists])
        source_of_lists = CandidateSource(
            table.where, content, partial(_one_list, lists, table.lists), "row", part.texts
        )
        _import_lists(workspace, source_of_lists, options)
    else:
        scorer = _required("--teacher", teacher)
        source_of_scores = CandidateSource(
            table.where, table.content, partial(_one_list, scorer, table.scores), "row", part.texts
        )
        more = {key: getattr(options, key) for key in ("add_positives", "strict", "overwrite")}
        ws, score_options = Workspace.open(workspace), ScoreOptions(**pairs, **more)
        with run_summary(ws, "import-hub") as facts:
            imported = import_score_source(ws, source_of_scores, scorer, "hub", score_options)
            facts |= {**vars(imported), "counts": vars(imported.counts)}
        _show_scores(scorer, imported)


def _required(option: str, name: str | None) -> str:
    if name is None:
        raise UsageError(f"{option} is missing", todo=f"pass {option} NAME")
    return check_name(option.removeprefix("--"), name)


def _one_list(
    name: str, read: Callable[[], Iterator[CandidateBatch]], systems: dict[str, int]
) -> Iterator[CandidateBatch]:
    systems[name] = 0
    return read()


def _show_scores(teacher: str, imported: ImportedScores) -> None:
    from jobs.terminal.console import console

    if imported.unchanged:
        console.print("these scores are in the workspace already; nothing to do")
        return
    counts = imported.counts
    console.print(f"scores/{teacher}: {imported.pairs:,} pairs, from {counts.rows:,} rows of format {imported.form}")
    if imported.unused:
        console.print(f"{imported.unused:,} scores are of pairs that the workspace does not have")
    if imported.judgements:
        console.print(f"added {imported.judgements:,} positives to the judgements")
    for line in counts.lines():
        console.print(line)


def _import_lists(location: str, source: CandidateSource, options: ListOptions) -> None:
    from jobs.commands.summary import run_summary
    from jobs.terminal.console import console
    from pipeline.imports.lists import import_lists as run
    from pipeline.storage.workspace import Workspace

    ws = Workspace.open(location)
    with run_summary(ws, "import-lists") as facts:
        imported = run(ws, source, options)
        facts |= {**vars(imported), "counts": vars(imported.counts)}
    if imported.unchanged:
        console.print("these lists are in the workspace already; nothing to do")
        return
    for system, rows in imported.systems.items():
        console.print(f"retrieved/{system}: {rows:,} rows")
    if imported.judgements:
        console.print(f"added {imported.judgements:,} positives to the judgements")
    for line in imported.counts.lines():
        console.print(line)
