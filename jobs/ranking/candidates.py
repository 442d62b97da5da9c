"""The candidates that re-ranking starts from: a retriever's lists for some queries, and a teacher's scores of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pipeline.errors import WorkspaceError
from pipeline.retrieval.lists import RetrievedSet, usable_retrieved
from pipeline.scores.scores import ScoreSet, read_scores
from pipeline.storage.workspace import Workspace
from pipeline.tables.database import connect, view_parquet
from pipeline.tables.parts import open_part

_LOW = 0xFFFF_FFFF


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

    Reads the lists of the split, and imported ones, whose queries may be of any split; memory holds the N rows.

    Raises:
        WorkspaceError: the retriever has no lists for the split.
    """
    found = retrieved_for(workspace, system, split)
    with connect(workspace.local) as connection:
        view_parquet(connection, "retrieved", found.paths_of(split))
        connection.register("wanted", pa.table({"query_id": np.asarray(queries, np.int32)}))
        columns = connection.execute(
            # An imported list may repeat a mined one.
            "SELECT query_id, passage_id, max(score) AS score FROM retrieved SEMI JOIN wanted USING (query_id) "
            "GROUP BY query_id, passage_id"
        ).fetchnumpy()
    return columns["query_id"], columns["passage_id"], columns["score"]


def teacher_scores(
    workspace: Workspace, system: str, split: str, queries: np.ndarray, scores: ScoreSet
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A retriever's passages for some queries (Q,) of a split with a teacher's scores, in the form of `candidates_of`.

    Reads the shards that have pairs of these queries.

    Raises:
        WorkspaceError: the pairs do not contain the retriever's lists.
    """
    pairs = scores.pairs
    if system not in pairs.systems:
        raise WorkspaceError(f"no retriever {system!r} in the pairs", expected=", ".join(pairs.systems))
    query, passage, _ = candidates_of(workspace, system, split, queries)
    wanted, score = np.sort(_keys(query, passage)), np.empty(len(query), np.float32)
    known = np.zeros(len(query), np.bool_)
    for pair_path, score_path, footer in zip(pairs.paths, scores.paths, pairs.footers, strict=True):
        bounds = np.searchsorted(wanted >> 32, [footer.extra["first_query"], footer.extra["last_query"] + 1])
        if bounds[0] == bounds[1]:
            continue
        file, _ = open_part(pair_path)
        with file:
            table = file.read(columns=["query_id", "passage_id", f"rank_{system}"])
        keys = _keys(*(table.column(name).to_numpy() for name in ("query_id", "passage_id")))
        rows = np.flatnonzero(table.column(f"rank_{system}").is_valid().to_numpy() & np.isin(keys, wanted))
        places = np.searchsorted(wanted, keys[rows])
        score[places], known[places] = read_scores(score_path)[rows], True
    if not known.all():
        raise WorkspaceError(
            f"the lists of {system} are not those that the teachers scored",
            where=pairs.paths[0].parent,
            expected=f"{len(wanted):,} pairs of query and passage",
            found=f"{int(known.sum()):,} of them in the pairs",
            todo="run: prep build-pairs, then prep score",
        )
    return (wanted >> 32).astype(np.int32), (wanted & _LOW).astype(np.int32), score


def _keys(query: np.ndarray, passage: np.ndarray) -> np.ndarray:
    """Query and passage ids (N,) as one number each (N,) int64, ordered by query."""
    return query.astype(np.int64) << 32 | passage.astype(np.int64)
