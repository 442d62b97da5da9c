"""Reads a pair shard and puts the scores of all teachers beside it, row by row.

Score files have the row order of their pair shard, so this is a zip and not a join. Every id is compared: a zip of
files in different orders would be wrong without an error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline import schemas
from pipeline.errors import WorkspaceError
from pipeline.storage.location import AnyPath
from pipeline.tables.parts import ROW_GROUP_ROWS, open_part

IDS = ("query_id", "passage_id")


def scored_shard(pairs: AnyPath, scores: Sequence[AnyPath], first: int | None = None) -> pa.Table:
    """The pairs in file order, with a float32 column `score_0`, `score_1`, … for each score file.

    Args:
        pairs: the pair shard.
        scores: the score file of each teacher.
        first: read only that many rows; None reads all.

    Raises:
        WorkspaceError: the rows of a score file are not those of the pair shard, or a score is not finite.
    """
    table = _rows(pairs, None, first)
    for i, path in enumerate(scores):
        scored = _rows(path, schemas.SCORES, first)
        misplaced = _misplaced(table, scored)
        if misplaced:
            raise WorkspaceError(
                "score rows are not in the order of the pair shard",
                where=path,
                expected=f"the {len(table)} pairs of {pairs}",
                found=f"{misplaced} rows differ",
                todo="remove the file and run prep score again",
            )
        score = scored.column("score")
        infinite = len(score) - int(np.isfinite(score.to_numpy()).sum())
        if infinite:
            raise WorkspaceError(
                "scores that are not finite", where=path, found=f"{infinite} pairs", todo="score the shard again"
            )
        table = table.append_column(f"score_{i}", score)
    return table


def _rows(path: AnyPath, schema: pa.Schema | None, first: int | None) -> pa.Table:
    file, _ = open_part(path, schema)
    with file:
        if first is None:
            return file.read(use_threads=False)
        groups = range(min(file.num_row_groups, -(-first // ROW_GROUP_ROWS)))
        return file.read_row_groups(list(groups), use_threads=False).slice(0, first)


def _misplaced(pairs: pa.Table, scores: pa.Table) -> int:
    """Number of rows whose ids differ, missing and extra rows included."""
    rows = min(len(pairs), len(scores))
    same = np.ones(rows, bool)
    for name in IDS:
        same &= pairs.column(name).to_numpy()[:rows] == scores.column(name).to_numpy()[:rows]
    return max(len(pairs), len(scores)) - int(same.sum())
