"""Reads the rows of an export: triples in their order, or groups of a query and its passages, positives first.

The order of groups depends on the seed alone; so does the choice among negatives where a group has more than it may
have. Memory is bounded by a batch and its last query; sorting spills to disk.

Shapes: G groups of a batch, M passages of all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from pipeline.storage.location import AnyPath
from pipeline.tables.database import sql
from pipeline.tables.parquet import open_parquet

ROWS_PER_BATCH = 16_384
PASSAGES_PER_BATCH = 1 << 18


class Groups(NamedTuple):
    """Queries with their passages, the positives first."""

    query: np.ndarray
    """(G,) int32"""
    positives: np.ndarray
    """(G,) number of positives, which are the first passages of the group."""
    lengths: np.ndarray
    """(G,) number of passages of each group."""
    passage: np.ndarray
    """(M,) int32"""
    score: np.ndarray
    """(M,) float32"""

    def where(self, kept: np.ndarray) -> Groups:
        """The groups that a mask (G,) selects."""
        rows = np.repeat(kept, self.lengths)
        return Groups(self.query[kept], self.positives[kept], self.lengths[kept], self.passage[rows], self.score[rows])

    def lists(self, values: pa.Array) -> pa.ListArray:
        """Values (M,) as an Arrow list for each group."""
        offsets = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), values)

    def split(self, values: Sequence[object]) -> list[list[object]]:
        """Values (M,) as a Python list for each group."""
        ends = np.cumsum(self.lengths)
        return [list(values[end - length : end]) for end, length in zip(ends, self.lengths, strict=True)]


def triple_batches(connection: duckdb.DuckDBPyConnection) -> Iterator[pa.RecordBatch]:
    """Yields the view `triples` in its order."""
    yield from connection.sql("FROM triples").to_arrow_reader(ROWS_PER_BATCH)


def triple_groups(
    connection: duckdb.DuckDBPyConnection,
    seed: int,
    by: Literal["positive", "query"],
    negatives: int | None,
) -> Iterator[Groups]:
    """Yields the view `triples` grouped by query and positive, or by query, with up to `negatives` in each group."""
    rows = connection.sql(sql("exports/sorted"), params={"seed": seed}).to_arrow_reader(ROWS_PER_BATCH)
    pending: list[pa.RecordBatch] = []
    for batch in rows:
        query = batch.column("query_id").to_numpy()
        last = 0 if query[0] == query[-1] else _last_run(query)
        if last:
            yield _grouped(pa.Table.from_batches([*pending, batch.slice(0, last)]), by, negatives)
            pending = []
        elif pending and pending[-1].column("query_id")[-1].as_py() != query[0]:
            yield _grouped(pa.Table.from_batches(pending), by, negatives)
            pending = []
        pending.append(batch.slice(last))
    if pending:
        yield _grouped(pa.Table.from_batches(pending), by, negatives)


def list_groups(paths: Sequence[AnyPath], passages: int | None) -> Iterator[Groups]:
    """Yields n-way lists in their order, the positive first, with up to `passages` of each."""
    for path in paths:
        with open_parquet(path) as file:
            for batch in _sliced(file.iter_batches(ROWS_PER_BATCH)):
                ids, scores = batch.column("passage_ids"), batch.column("scores")
                lengths = np.diff(ids.offsets.to_numpy())
                rank = _ranks(lengths)
                kept = rank < (len(rank) if passages is None else passages)
                yield Groups(
                    batch.column("query_id").to_numpy(),
                    np.ones(len(lengths), np.int64),
                    lengths if passages is None else np.minimum(lengths, passages),
                    ids.flatten().to_numpy()[kept],
                    scores.flatten().to_numpy()[kept],
                )


def _sliced(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Cuts batches of lists into smaller ones where long lists make them large."""
    for batch in batches:
        longest = max(1, int(np.diff(batch.column("passage_ids").offsets.to_numpy()).max(initial=0)))
        rows = max(1, PASSAGES_PER_BATCH // longest)
        yield from (batch.slice(start, rows) for start in range(0, batch.num_rows, rows))


def _last_run(query: np.ndarray) -> int:
    """Index of the first row of the last query."""
    return int(np.flatnonzero(np.diff(query))[-1]) + 1


def _ranks(lengths: np.ndarray) -> np.ndarray:
    """Rank (M,) of each passage in its group, from 0."""
    ranks: np.ndarray = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return ranks


def _grouped(table: pa.Table, by: Literal["positive", "query"], negatives: int | None) -> Groups:
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    query, positive, negative = (columns[name] for name in ("query_id", "positive_id", "negative_id"))
    new = np.concatenate([[True], query[1:] != query[:-1]])
    if by == "positive":
        new[1:] |= positive[1:] != positive[:-1]
    group = np.cumsum(new) - 1
    good, bad = _first_of_each(group, positive), _first_of_each(group, negative)
    rank = _ranks(np.bincount(group[bad]))
    bad = bad[rank < (len(rank) if negatives is None else negatives)]
    order = np.argsort(np.concatenate([group[good] * 2, group[bad] * 2 + 1]), kind="stable")
    return Groups(
        query[new],
        np.bincount(group[good]),
        np.bincount(group[good]) + np.bincount(group[bad]),
        np.concatenate([positive[good], negative[bad]])[order],
        np.concatenate([columns["positive_score"][good], columns["negative_score"][bad]])[order],
    )


def _first_of_each(group: np.ndarray, passage: np.ndarray) -> np.ndarray:
    """Ascending indices of the rows in which a passage appears for the first time in its group."""
    _, rows = np.unique(group.astype(np.int64) << 32 | passage, return_index=True)
    return np.sort(rows)
