"""Checks that the ids in a file of pairs still name the texts that they named when the file was written."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from pipeline.collection.texts_by_content import text_hashes
from pipeline.scores.scores import read_pair_ids
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.tables.content import hash_arrays


class TextHashes:
    """Hashes of all queries and passages, read at the first use: 8 bytes for each text."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def fit(self, path: AnyPath, texts: str) -> bool:
        """Whether the pairs of a file have the fingerprint `texts`, as recorded in the footer of a pair shard."""
        ids = read_pair_ids(path)
        if any(len(column) and column.max() >= len(known) for column, known in zip(ids, self._hashes, strict=True)):
            return False
        return hash_arrays(*ids, *(known[column] for column, known in zip(ids, self._hashes, strict=True))) == texts

    @cached_property
    def _hashes(self) -> tuple[np.ndarray, np.ndarray]:
        """Of queries and of passages, by id."""
        return text_hashes(self._workspace, "queries"), text_hashes(self._workspace, "passages")
