"""Queries that are passages of the collection themselves, as in ArguAna and Quora: the two have the same external id.

A retriever finds such a passage first, and it says nothing about the retriever. BEIR's evaluation leaves it out of the
results and keeps the judgements as they are (`EvaluateRetrieval.evaluate`, `ignore_identical_ids=True`; Thakur et al.
2021, arXiv 2104.08663). In collections whose queries and passages are numbered separately, equal ids mean nothing.

Shapes: Q queries, N pairs, I queries that are passages.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.collection.selection import view_tables
from pipeline.storage.workspace import Workspace
from pipeline.tables.database import connect
from pipeline.tables.parts import read_footers


class IdenticalIds(NamedTuple):
    """The passage of each query that has the same external id, ordered by query."""

    query_id: np.ndarray  # (I,) int32
    passage_id: np.ndarray  # (I,) int32

    def mask(self, query_id: np.ndarray, passage_id: np.ndarray) -> np.ndarray:
        """Which of the pairs (N,) are a query with its own passage, (N,) bool."""
        if not len(self.query_id):
            return np.zeros(len(query_id), np.bool_)
        rows = np.minimum(np.searchsorted(self.query_id, query_id), len(self.query_id) - 1)
        own: np.ndarray = np.logical_and(self.query_id[rows] == query_id, self.passage_id[rows] == passage_id)
        return own


def find_identical_ids(workspace: Workspace, queries: np.ndarray) -> IdenticalIds:
    """The passages that have the external id of one of the queries (Q,)."""
    with connect(workspace.local) as connection:
        view_tables(connection, workspace, "queries", "passages")
        connection.register("wanted", pa.table({"query_id": np.asarray(queries, np.int32)}))
        found = connection.execute(
            "SELECT query_id, passage_id FROM queries SEMI JOIN wanted USING (query_id) "
            "JOIN passages USING (external_id) ORDER BY query_id"
        ).fetchnumpy()
    return IdenticalIds(np.asarray(found["query_id"]), np.asarray(found["passage_id"]))


def is_beir(workspace: Workspace) -> bool:
    """Whether all passages came from a collection of BEIR, by `import beir` or from `beir/…` of ir_datasets."""
    sources = {str(footer.recipe.settings.get("source")) for footer in read_footers(workspace.parts("passages"))}
    return bool(sources) and all(source == "beir" or source.startswith("ir_datasets beir/") for source in sources)
