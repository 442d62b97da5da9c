"""The content hashes of all texts by id: whether the ids of a file still mean the texts they meant."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from pipeline.errors import WorkspaceError
from pipeline.scores.scores import read_pair_ids
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.tables.content import hash_arrays
from pipeline.tables.parquet import read_columns

_ID = {"queries": "query_id", "passages": "passage_id"}


class TextHashes:
    """Hashes of queries and passages, read when first asked for: 8 bytes a text."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def fit(self, path: AnyPath, texts: str) -> bool:
        """Whether the pairs of a file have the texts that the fingerprint `texts` of a pair shard stands for."""
        ids = read_pair_ids(path)
        if any(len(column) and column.max() >= len(known) for column, known in zip(ids, self._hashes, strict=True)):
            return False
        return hash_arrays(*ids, *(known[column] for column, known in zip(ids, self._hashes, strict=True))) == texts

    @cached_property
    def _hashes(self) -> tuple[np.ndarray, np.ndarray]:
        """Of queries and of passages, by id."""
        return text_hashes(self._workspace, "queries"), text_hashes(self._workspace, "passages")


def text_hashes(workspace: Workspace, table: str) -> np.ndarray:
    """Content hashes (N,) uint64 of `queries` or `passages`, by id.

    Raises:
        WorkspaceError: none imported.
    """
    parts = [read_columns(path, [_ID[table], "text_hash"]) for path in workspace.parts(table)]
    if not parts:
        raise WorkspaceError(f"no {table} yet", where=workspace.root, todo="import them: prep import msmarco --help")
    ids = np.concatenate([part.column(0).to_numpy() for part in parts])
    by_id = np.zeros(len(ids), np.uint64)
    by_id[ids] = np.concatenate([part.column(1).to_numpy() for part in parts])
    return by_id
