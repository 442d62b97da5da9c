"""Reads a collection in MS MARCO's format: tab-separated passages and queries, qrels separated by tabs or spaces.

No file has a header. Passages and queries are lines of id and text; qrels are lines of query id, 0, passage id and
grade (as in TREC). A split is a pair of files, one of queries and one of qrels, of which either may be missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.collection.importing import Imported, Rows
from pipeline.fingerprint import digest_file
from pipeline.imports.collection_source import TEXT_COLUMNS, CollectionSource, import_collection
from pipeline.imports.intake import existing
from pipeline.storage.workspace import Workspace
from pipeline.tables.delimited import read_fields, read_tsv

_QRELS_COLUMNS = ["query", "iteration", "passage", "grade"]
SplitFile = tuple[str, Path]


def msmarco_collection(
    collection: Path | None, queries: Sequence[SplitFile], qrels: Sequence[SplitFile], *, keep_unknown: bool = False
) -> CollectionSource:
    """The collection in these files, each plain or compressed.

    With `keep_unknown`, judgements of passages that are not in the collection come in as never found.

    Raises:
        InputError: a file is missing.
    """

    def texts(path: Path) -> Rows:
        return Rows(path, lambda: read_tsv(path, TEXT_COLUMNS), digest_file(existing(path)))

    def judgements(path: Path) -> Rows:
        return Rows(path, lambda: read_fields(path, _QRELS_COLUMNS), digest_file(existing(path)))

    return CollectionSource(
        "msmarco",
        texts(collection) if collection else None,
        [(split, texts(path)) for split, path in queries],
        [(split, judgements(path)) for split, path in qrels],
        keep_unknown=keep_unknown,
    )


def import_msmarco(
    workspace: Workspace,
    collection: Path | None,
    queries: Sequence[SplitFile],
    qrels: Sequence[SplitFile],
    *,
    keep_unknown: bool = False,
) -> Imported:
    """Import a collection (may be left out once there is one), queries and qrels, each with its split.

    Raises:
        InputError: a file is missing, or what `import_collection` refuses.
        WorkspaceError: no collection yet and none given; another import is running.
    """
    return import_collection(workspace, msmarco_collection(collection, queries, qrels, keep_unknown=keep_unknown))
