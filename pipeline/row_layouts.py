"""What leaves a shard for the shuffle, and what arrives in a part: triples, or lists of one positive and others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from pipeline import schemas
from pipeline.shuffle import row_type, shuffle_keys

if TYPE_CHECKING:
    from pipeline.triple_shards import ShardWorker


class Layout(Protocol):
    """Rows of fixed size on their way, a table at both ends."""

    @property
    def dataset(self) -> str:
        """Where its sets stand in a workspace."""

    @property
    def schema(self) -> pa.Schema:
        """The table."""

    @property
    def kind(self) -> np.dtype:
        """A row, as a structured type."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Fields that tell rows apart, and decide their place."""

    def rows(self, worker: ShardWorker) -> np.ndarray:
        """Rows (N,) of the shard that was measured last, in any order."""

    def batch(self, rows: np.ndarray) -> pa.RecordBatch:
        """Rows (N,) as a batch of the table."""


def keys(layout: Layout, rows: np.ndarray, seed: int) -> np.ndarray:
    """Places of rows (N,) in the shuffle, (N,) uint64."""
    return shuffle_keys(seed, *(rows[name] for name in layout.ids))


@dataclass(frozen=True)
class Triples:
    """One positive and one negative."""

    dataset: str = "triples"
    ids: tuple[str, ...] = ("query_id", "positive_id", "negative_id")

    @property
    def schema(self) -> pa.Schema:
        """See Layout."""
        return schemas.TRIPLES

    @property
    def kind(self) -> np.dtype:
        """See Layout."""
        return row_type([(field.name, "i4" if field.name in self.ids else "f4") for field in self.schema])

    def rows(self, worker: ShardWorker) -> np.ndarray:
        """See Layout."""
        columns = worker.kept()
        rows = np.zeros(len(columns["query_id"]), self.kind)
        for name, column in columns.items():
            rows[name] = column
        return rows

    def batch(self, rows: np.ndarray) -> pa.RecordBatch:
        """See Layout."""
        columns = [pa.array(np.ascontiguousarray(rows[name])) for name in self.schema.names]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)


@dataclass(frozen=True)
class Lists:
    """One positive, then its negatives from the highest scored on."""

    size: int
    """Most passages of a list, the positive among them."""
    drop_short: bool = False
    """Whether lists with fewer are left out."""
    dataset: str = "lists"
    ids: tuple[str, ...] = ("query_id", "positive_id")

    @property
    def schema(self) -> pa.Schema:
        """See Layout."""
        return schemas.LISTS

    @property
    def kind(self) -> np.dtype:
        """See Layout."""
        numbers = [(name, "i4") for name in (*self.ids, "length")]
        return row_type([*numbers, ("passage_ids", "i4", self.size), ("scores", "f4", self.size)])

    def rows(self, worker: ShardWorker) -> np.ndarray:
        """See Layout."""
        columns = worker.kept()
        query, positive, negative = (columns[name] for name in ("query_id", "positive_id", "negative_id"))
        order = np.lexsort([negative, -columns["negative_score"], positive, query])
        query, positive = query[order], positive[order]
        starts = np.flatnonzero(np.r_[True, (query[1:] != query[:-1]) | (positive[1:] != positive[:-1])][: len(query)])
        lengths = np.diff(np.r_[starts, len(query)])
        rows = np.zeros(len(starts), self.kind)
        rows["query_id"], rows["positive_id"], rows["length"] = query[starts], positive[starts], lengths + 1
        rows["passage_ids"][:, 0] = positive[starts]
        rows["scores"][:, 0] = columns["positive_score"][order][starts]
        row = np.repeat(np.arange(len(starts)), lengths)
        place = np.arange(len(query)) - np.repeat(starts, lengths) + 1
        rows["passage_ids"][row, place] = negative[order]
        rows["scores"][row, place] = columns["negative_score"][order]
        return rows[rows["length"] == self.size] if self.drop_short else rows

    def batch(self, rows: np.ndarray) -> pa.RecordBatch:
        """See Layout."""
        offsets = pa.array(np.r_[0, np.cumsum(rows["length"])].astype(np.int32))
        filled = np.arange(self.size) < rows["length"][:, None]  # (N, size)
        lists = [pa.ListArray.from_arrays(offsets, pa.array(rows[name][filled])) for name in ("passage_ids", "scores")]
        columns = [pa.array(np.ascontiguousarray(rows["query_id"])), *lists]
        return pa.RecordBatch.from_arrays(columns, names=self.schema.names).cast(self.schema)
