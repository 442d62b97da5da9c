"""Import of files in MS MARCO's form: a collection, queries by split and qrels by split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.collection.importing import Imported, Rows, import_tables
from pipeline.fingerprint import digest_file
from pipeline.imports.intake import existing
from pipeline.storage.workspace import Workspace
from pipeline.tables.delimited import read_fields, read_tsv

SplitFile = tuple[str, Path]


def import_msmarco(
    workspace: Workspace, collection: Path | None, queries: Sequence[SplitFile], qrels: Sequence[SplitFile]
) -> Imported:
    """Import a collection (may be left out once there is one), queries and qrels, each with its split.

    Raises:
        InputError: a malformed line, an unknown id, an id with two texts, a pair with two grades.
        WorkspaceError: no collection yet and none given; another import is running.
    """

    def texts(path: Path) -> Rows:
        return Rows(path, lambda: read_tsv(path, ["external_id", "text"]), digest_file(existing(path)))

    def judgements(path: Path) -> Rows:
        columns = ["query", "iteration", "passage", "grade"]
        return Rows(path, lambda: read_fields(path, columns), digest_file(existing(path)))

    return import_tables(
        workspace,
        texts(collection) if collection else None,
        [(split, texts(path)) for split, path in queries],
        [(split, judgements(path)) for split, path in qrels],
    )
