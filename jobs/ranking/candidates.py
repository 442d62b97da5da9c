"""The candidates that re-ranking starts from: a retriever's lists for some queries, and a teacher's scores of them."""

from __future__ import annotations

import numpy as np

from pipeline.errors import WorkspaceError
from pipeline.retrieval.lists import RetrievedSet, usable_retrieved
from pipeline.scores.scores import ScoreSet, read_scores
from pipeline.storage.workspace import Workspace
from pipeline.tables.database import connect, view_parquet
from pipeline.tables.parts import open_part


def retrieved_for(workspace: Workspace, system: str, split: str) -> RetrievedSet:
    """The lists of a retriever that has searched for all queries of a split.

    Raises:
        WorkspaceError: the split was not searched, or not completely.
        StaleError: passages or queries of the split have changed since.
    """
    found = usable_retrieved(workspace, system, split)
    if not found.covers(split):
        raise WorkspaceError(
            f"{system} has no lists for split {split!r}",
            where=found.paths[0].parent,
            todo=f"run: prep mine --system {system} --split {split}",
        )
    return found


def candidates_of(
    workspace: Workspace, system: str, split: str, queries: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A retriever's lists for some queries (Q,) of a split: query ids, passage ids and scores (N,).

    Raises:
        WorkspaceError: the retriever has no lists for the split.
    """
    found = retrieved_for(workspace, system, split)
    with connect(workspace.local) as connection:
        view_parquet(connection, "retrieved", found.paths)
        columns = connection.execute(
            # A query in two splits may have been retrieved for both.
            "SELECT query_id, passage_id, max(score) AS score FROM retrieved GROUP BY query_id, passage_id"
        ).fetchnumpy()
    rows = np.isin(columns["query_id"], queries)
    return columns["query_id"][rows], columns["passage_id"][rows], columns["score"][rows]


def teacher_scores(
    workspace: Workspace, system: str, split: str, queries: np.ndarray, scores: ScoreSet
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A retriever's passages for some queries (Q,) of a split with a teacher's scores, in the form of `candidates_of`.

    Raises:
        WorkspaceError: the pairs do not contain the retriever's lists, or the lists have changed since.
    """
    pairs = scores.pairs
    if system not in pairs.systems:
        raise WorkspaceError(f"no retriever {system!r} in the pairs", expected=", ".join(pairs.systems))
    columns = []
    for pair_path, score_path in zip(pairs.paths, scores.paths, strict=True):
        file, _ = open_part(pair_path)
        with file:
            table = file.read(columns=["query_id", "passage_id", f"rank_{system}"])
        query, passage = table.column("query_id").to_numpy(), table.column("passage_id").to_numpy()
        rows = table.column(f"rank_{system}").is_valid().to_numpy() & np.isin(query, queries)
        columns.append((query[rows], passage[rows], read_scores(score_path)[rows]))
    query, passage, score = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    now = candidates_of(workspace, system, split, queries)
    if not np.array_equal(_sorted_ids(query, passage), _sorted_ids(now[0], now[1])):
        raise WorkspaceError(
            f"the lists of {system} are not those that the teachers scored",
            where=pairs.paths[0].parent,
            todo="run: prep build-pairs, then prep score",
        )
    return query, passage, score


def _sorted_ids(query: np.ndarray, passage: np.ndarray) -> np.ndarray:
    """(2, N) query and passage ids, in order."""
    return np.stack([query, passage])[:, np.lexsort((passage, query))]
