"""Content hashes of all texts, by id."""

from __future__ import annotations

import numpy as np

from pipeline.errors import MissingError
from pipeline.storage.workspace import Workspace
from pipeline.tables.parquet import read_columns

_ID = {"queries": "query_id", "passages": "passage_id"}


def text_hashes(workspace: Workspace, table: str) -> np.ndarray:
    """Content hashes (N,) uint64 of `queries` or `passages`, by id.

    Raises:
        WorkspaceError: none imported.
    """
    parts = [read_columns(path, [_ID[table], "text_hash"]) for path in workspace.parts(table)]
    if not parts:
        raise MissingError(f"no {table} yet", where=workspace.root, todo="import them: prep import msmarco --help")
    ids = np.concatenate([part.column(0).to_numpy() for part in parts])
    by_id = np.zeros(len(ids), np.uint64)
    by_id[ids] = np.concatenate([part.column(1).to_numpy() for part in parts])
    return by_id
