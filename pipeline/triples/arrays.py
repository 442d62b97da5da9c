"""Parts of triples and lists as NumPy arrays: what training from teacher scores reads."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc

from pipeline import schemas
from pipeline.errors import WorkspaceError
from pipeline.storage.location import AnyPath
from pipeline.tables.parts import open_part, read_part


class ScoredRows(NamedTuple):
    """R queries with K scored passages each, the positive first."""

    query_id: np.ndarray  # (R,) int32
    passage_ids: np.ndarray  # (R, K) int32
    scores: np.ndarray  # (R, K) float32 raw logits
    margin_std: np.ndarray | None = None  # (R,) float32 standard deviation of the teachers' margins; None in lists


def read_triples(path: AnyPath) -> ScoredRows:
    """All triples of a part, K = 2."""
    names = ["query_id", "positive_id", "negative_id", "positive_score", "negative_score", "margin_std"]
    table, _ = read_part(path, schemas.TRIPLES, names)
    query, positive, negative, positive_score, negative_score, std = (table.column(n).to_numpy() for n in names)
    ids, scores = np.stack([positive, negative], axis=1), np.stack([positive_score, negative_score], axis=1)
    return ScoredRows(query, ids, scores, std)


def read_lists(path: AnyPath, size: int) -> ScoredRows:
    """All lists of a part, each cut to its first `size` passages, K = `size`.

    Raises:
        WorkspaceError: a list has fewer passages.
    """
    file, _ = open_part(path)
    with file:
        table = file.read(columns=["query_id", "passage_ids", "scores"]).combine_chunks()
    query = table.column("query_id").to_numpy()
    shortest = pc.min(pc.list_value_length(table.column("passage_ids"))).as_py()
    if shortest is not None and shortest < size:
        raise WorkspaceError(
            "a list has too few passages",
            where=path,
            expected=f"{size} or more",
            found=shortest,
            todo="lower --list-size, or build longer lists",
        )
    ids, scores = (
        pc.list_flatten(pc.list_slice(table.column(name), 0, size).combine_chunks()).to_numpy().reshape(-1, size)
        for name in ("passage_ids", "scores")
    )
    return ScoredRows(query, ids, scores.astype(np.float32))
