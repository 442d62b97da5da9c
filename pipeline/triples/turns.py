"""Triples grouped by query, on disk, for training in which each query comes once per epoch.

A cache under `.cache/turns`, named by the content of the triples and the seed: `.npy` files that are written once,
mapped into memory, and safe to remove. Five columns (R,) hold a row for each triple, sorted by query, positive and an
order of negatives drawn for the query. Each of the G pairs of query and positive has its `query_id` and the `start`
(G + 1,) of its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.lib.format import open_memmap

from pipeline.collection.texts import CACHE
from pipeline.fingerprint import digest_json
from pipeline.storage.location import AnyPath
from pipeline.storage.published_sets import staged_directory
from pipeline.storage.workspace import Workspace
from pipeline.tables.database import connect, sql, view_parquet
from pipeline.tables.parts import content_fingerprint
from pipeline.tables.provenance import Footer

_COLUMNS = {
    "positive_id": np.int32,
    "negative_id": np.int32,
    "positive_score": np.float32,
    "negative_score": np.float32,
    "margin_std": np.float32,
}
_ROWS_PER_BATCH = 1 << 20
STATEMENTS = {"triples/by_query": 1}
"""Statement → its version, to be raised when the statement gives other rows or another order."""


class TripleTurns(NamedTuple):
    """R triples of G pairs of query and positive."""

    positive_id: np.ndarray  # (R,) int32
    negative_id: np.ndarray  # (R,) int32
    positive_score: np.ndarray  # (R,) float32
    negative_score: np.ndarray  # (R,) float32
    margin_std: np.ndarray  # (R,) float32
    query_id: np.ndarray  # (G,) int32, ascending
    start: np.ndarray  # (G + 1,) int64


def load_turns(workspace: Workspace, paths: Sequence[AnyPath], footers: Sequence[Footer], seed: int) -> TripleTurns:
    """A set of triples grouped by query; sorts it at the first call, on disk if it does not fit into memory."""
    raised = [STATEMENTS] if max(STATEMENTS.values()) > 1 else []
    directory = workspace.local.joinpath(CACHE, "turns", digest_json([content_fingerprint(footers), seed, *raised]))
    if not directory.is_dir():
        with staged_directory(directory) as staged:
            _write(staged, list(paths), sum(footer.rows for footer in footers), seed)
    return TripleTurns(*(np.load(directory / f"{name}.npy", mmap_mode="r") for name in TripleTurns._fields))


def _write(directory: Path, paths: list[AnyPath], rows: int, seed: int) -> None:
    columns = {
        name: open_memmap(directory / f"{name}.npy", "w+", kind, (max(rows, 1),)) for name, kind in _COLUMNS.items()
    }
    queries, starts, row = [np.empty(0, np.int32)], [np.empty(0, np.int64)], 0
    last = (-1, -1)
    with connect(directory) as connection:
        view_parquet(connection, "triples", paths)
        reader = connection.sql(sql("triples/by_query"), params={"seed": seed}).to_arrow_reader(_ROWS_PER_BATCH)
        for batch in reader:
            table = pa.Table.from_batches([batch])
            query, positive = (table.column(name).to_numpy() for name in ("query_id", "positive_id"))
            for name, column in columns.items():
                column[row : row + len(query)] = table.column(name).to_numpy()
            changed = (np.diff(ids, prepend=held) != 0 for ids, held in zip((query, positive), last, strict=True))
            new = np.flatnonzero(np.logical_or(*changed))
            queries.append(query[new])
            starts.append(new + row)
            row, last = row + len(query), (int(query[-1]), int(positive[-1]))
    for column in columns.values():
        column.flush()
    np.save(directory / "query_id.npy", np.concatenate(queries))
    np.save(directory / "start.npy", np.append(np.concatenate(starts), row))
