"""Judged positives and the retrieved negatives of their queries, as NumPy arrays: what training on labels reads.

In: the pair shards, with grades, and a split. Out: each judged positive, and the range of its query's negatives in one
pool. A negative is a pair that is unjudged or has grade 0; a grade between that and the relevance level is neither.
"""

from __future__ import annotations

from typing import NamedTuple

import duckdb
import numpy as np

from pipeline.collection.selection import require_split, view_tables
from pipeline.errors import WorkspaceError
from pipeline.scores.pairs import PairSet
from pipeline.storage.workspace import Workspace
from pipeline.tables.database import sql, view_parquet


class JudgedArrays(NamedTuple):
    """R positives and a pool of P negatives."""

    query_id: np.ndarray  # (R,) int32, ascending
    positive_id: np.ndarray  # (R,) int32
    offsets: np.ndarray  # (R, 2) int64: the negatives of row r are negative_id[offsets[r, 0] : offsets[r, 1]]
    negative_id: np.ndarray  # (P,) int32, by query


def read_judged_pairs(workspace: Workspace, pairs: PairSet, split: str, relevance_level: int = 1) -> JudgedArrays:
    """Positives of a split whose query has a retrieved negative; `relevance_level` is the lowest relevant grade.

    Raises:
        WorkspaceError: the split is unknown, or none of its queries has both a positive and a negative.
    """
    with duckdb.connect() as connection:
        view_tables(connection, workspace, "queries")
        require_split(connection, split)
        view_parquet(connection, "pairs", pairs.paths)
        rows = connection.execute(sql("scores/judged_pairs"), {"split": split}).fetchnumpy()
    query, passage, grade = (np.asarray(rows[name]) for name in ("query_id", "passage_id", "grade"))
    is_negative, is_positive = grade <= 0, grade >= relevance_level
    pool, pool_query = passage[is_negative], query[is_negative]
    positive_query, positive = query[is_positive], passage[is_positive]
    offsets = np.stack([np.searchsorted(pool_query, positive_query, side) for side in ("left", "right")], axis=1)
    usable = offsets[:, 1] > offsets[:, 0]
    if not usable.any():
        raise WorkspaceError(
            f"no query of split {split!r} has both a positive and a negative",
            found=f"{len(positive)} positives, {len(pool)} negatives",
            todo="mine the split and build the pairs again",
        )
    return JudgedArrays(positive_query[usable], positive[usable], offsets[usable], pool)
