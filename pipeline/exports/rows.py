"""Reads the rows of an export: triples in their order, or groups of a query and its passages, positives first.

The order of groups depends on the seed alone; so does the choice among negatives where a group has more than it may
have. Memory is bounded by a batch and its last query; sorting spills to disk.

Shapes: G groups of a batch, M passages of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa

from pipeline.exports.shared_rows import common_negatives, equal_negatives
from pipeline.storage.location import AnyPath
from pipeline.tables.database import sql
from pipeline.tables.parquet import open_parquet

ROWS_PER_BATCH = 16_384
PASSAGES_PER_BATCH = 1 << 18
Grouping = Literal["positive", "query", "run"]
"""A group is a positive of a query; the positives of a query whose negatives are the same; or a query, with negatives
that are in the set with every positive of the group."""


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
    by: Grouping,
    negatives: int | None,
    on_left_out: Callable[[int], object] = lambda passages: None,
) -> Iterator[Groups]:
    """Yields the view `triples` in groups with up to `negatives` negatives each.

    Args:
        connection: has the view.
        seed: of the order of queries and of the choice of negatives.
        by: what a group is.
        negatives: limit of a group; None is no limit.
        on_left_out: called with a number of passages that are left out of runs, since they are not in the set with the
            other passages of their query.
    """
    rows = connection.sql(sql("exports/sorted"), params={"seed": seed}).to_arrow_reader(ROWS_PER_BATCH)
    pending: list[pa.RecordBatch] = []
    for batch in rows:
        query = batch.column("query_id").to_numpy()
        last = 0 if query[0] == query[-1] else _last_run(query)
        if last:
            yield _grouped(pa.Table.from_batches([*pending, batch.slice(0, last)]), by, negatives, on_left_out)
            pending = []
        elif pending and pending[-1].column("query_id")[-1].as_py() != query[0]:
            yield _grouped(pa.Table.from_batches(pending), by, negatives, on_left_out)
            pending = []
        pending.append(batch.slice(last))
    if pending:
        yield _grouped(pa.Table.from_batches(pending), by, negatives, on_left_out)


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


def _grouped(table: pa.Table, by: Grouping, negatives: int | None, on_left_out: Callable[[int], object]) -> Groups:
    columns = {name: table.column(name).to_numpy() for name in table.column_names}
    query, positive, negative = (columns[name] for name in ("query_id", "positive_id", "negative_id"))
    new = np.concatenate([[True], (query[1:] != query[:-1]) | (positive[1:] != positive[:-1])])
    group = pair = np.cumsum(new) - 1  # of each triple: its query and positive
    good, bad = np.flatnonzero(new), _first_of_each(pair, negative)
    if by != "run":
        bad = _up_to(negatives, bad, pair)
    starts = np.searchsorted(pair[bad], np.arange(len(good) + 1))
    if by == "query":
        row = equal_negatives(query[good], negative[bad], starts)
        group = row[pair]
        good = good[np.argsort(row, kind="stable")]
        bad = bad[np.isin(pair[bad], np.unique(row, return_index=True)[1])]  # of the first positive of each row
    elif by == "run":
        kept = common_negatives(query[good], positive[good], negative[bad], starts)
        group = np.cumsum(np.diff(query, prepend=query[0]) != 0)
        passages = np.concatenate([positive[good], negative[bad]])
        every = len(_first_of_each(np.concatenate([group[good], group[bad]]), passages))
        good, bad = good[kept[0]], bad[kept[1]]
        bad = bad[_first_of_each(group[bad], negative[bad])]
        on_left_out(every - len(good) - len(bad))
        bad = _up_to(negatives, bad, group)
    order = np.argsort(np.concatenate([group[good] * 2, group[bad] * 2 + 1]), kind="stable")
    positives = np.bincount(group[good])
    return Groups(
        query[good[np.cumsum(positives) - positives]],
        positives,
        positives + np.bincount(group[bad], minlength=len(positives)),
        np.concatenate([positive[good], negative[bad]])[order],
        np.concatenate([columns["positive_score"][good], columns["negative_score"][bad]])[order],
    )


def _up_to(limit: int | None, rows: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The first `limit` rows of each group, from ascending rows (M,) and the group of every row of the table."""
    return rows if limit is None else rows[_ranks(np.bincount(group[rows])) < limit]


def _first_of_each(group: np.ndarray, passage: np.ndarray) -> np.ndarray:
    """Ascending indices of the rows in which a passage appears for the first time in its group."""
    _, rows = np.unique(group.astype(np.int64) << 32 | passage, return_index=True)
    return np.sort(rows)
