"""Layouts of a set: triples, or lists of one positive and its negatives.

A layout says how the candidates of a shard become rows of fixed size for the shuffle, and how rows become a table.

Shapes: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa

from pipeline import schemas
from pipeline.errors import UsageError
from pipeline.triples.shuffle import row_type, shuffle_keys

if TYPE_CHECKING:
    from pipeline.triples.settings import TripleSettings


class Layout(Protocol):
    """How a set is laid out, in the shuffle and in its files."""

    @property
    def dataset(self) -> str:
        """Directory of its sets in a workspace."""

    @property
    def schema(self) -> pa.Schema:
        """Schema of the files."""

    @property
    def kind(self) -> np.dtype:
        """NumPy structured type of a row in the shuffle."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Fields that identify a row and decide its position in the shuffle."""

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments that make an equal layout; saved with every set."""

    def limited(self, settings: TripleSettings) -> TripleSettings:
        """The settings with the limit on negatives that the layout needs."""

    def rows(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Rows (N,) of a shard, in any order, from the columns (M,) of its triples."""

    def unpacked(self, table: pa.Table) -> np.ndarray:
        """Rows (N,) of a table: the inverse of `batch`."""

    def batch(self, rows: np.ndarray) -> pa.RecordBatch:
        """Rows (N,) as a batch of the table."""


def keys(layout: Layout, rows: np.ndarray, seed: int) -> np.ndarray:
    """Shuffle keys (N,) uint64 of rows (N,)."""
    return shuffle_keys(seed, *(rows[name] for name in layout.ids))


@dataclass(frozen=True)
class Triples:
    """A row for each positive and each of its negatives."""

    dataset: ClassVar[str] = "triples"
    ids: ClassVar[tuple[str, ...]] = ("query_id", "positive_id", "negative_id")

    @property
    def schema(self) -> pa.Schema:
        """Schema of triple files."""
        return schemas.TRIPLES

    @property
    def kind(self) -> np.dtype:
        """The columns of the table, padded to whole words."""
        return row_type([(field.name, "i4" if field.name in self.ids else "f4") for field in self.schema])

    def rows(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Rows (N,) from columns (N,), one for each triple."""
        rows = np.zeros(len(columns["query_id"]), self.kind)
        for name, column in columns.items():
            rows[name] = column
        return rows

    @property
    def settings(self) -> dict[str, Any]:
        """Nothing: there is one layout of triples."""
        return {}

    def limited(self, settings: TripleSettings) -> TripleSettings:
        """The settings unchanged."""
        return settings

    def batch(self, rows: np.ndarray) -> pa.RecordBatch:
        """Rows (N,) as a batch."""
        columns = [pa.array(np.ascontiguousarray(rows[name])) for name in self.schema.names]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def unpacked(self, table: pa.Table) -> np.ndarray:
        """Rows (N,) of a table."""
        rows = np.zeros(len(table), self.kind)
        for name in self.schema.names:
            rows[name] = table.column(name).to_numpy()
        return rows


@dataclass(frozen=True)
class Lists:
    """A row for each positive of a query: the positive, then its negatives by falling score."""

    size: int
    """Maximum number of passages in a list, including the positive."""
    drop_short: bool = False
    """Whether shorter lists are left out."""
    dataset: ClassVar[str] = "lists"
    ids: ClassVar[tuple[str, ...]] = ("query_id", "positive_id")

    def __post_init__(self) -> None:
        if self.size < 2:
            raise UsageError("--size must be 2 or more", found=self.size)

    @property
    def schema(self) -> pa.Schema:
        """Schema of list files."""
        return schemas.LISTS

    @property
    def kind(self) -> np.dtype:
        """Ids, length, and arrays of `size` passages and scores, of which the first `length` are filled."""
        numbers = [(name, "i4") for name in (*self.ids, "length")]
        return row_type([*numbers, ("passage_ids", "i4", self.size), ("scores", "f4", self.size)])

    def rows(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Rows (N,) from the columns (M,) of triples, one for each positive of a query."""
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
        column = np.arange(len(query)) - np.repeat(starts, lengths) + 1
        rows["passage_ids"][row, column] = negative[order]
        rows["scores"][row, column] = columns["negative_score"][order]
        return rows[rows["length"] == self.size] if self.drop_short else rows

    def batch(self, rows: np.ndarray) -> pa.RecordBatch:
        """Rows (N,) as a batch, without the unfilled ends of their arrays."""
        offsets = pa.array(np.r_[0, np.cumsum(rows["length"])].astype(np.int32))
        filled = np.arange(self.size) < rows["length"][:, None]  # (N, size)
        lists = [pa.ListArray.from_arrays(offsets, pa.array(rows[name][filled])) for name in ("passage_ids", "scores")]
        columns = [pa.array(np.ascontiguousarray(rows["query_id"])), *lists]
        return pa.RecordBatch.from_arrays(columns, names=self.schema.names).cast(self.schema)

    @property
    def settings(self) -> dict[str, Any]:
        """Size, and whether short lists are dropped."""
        return {"size": self.size, "drop_short": self.drop_short}

    def limited(self, settings: TripleSettings) -> TripleSettings:
        """The settings with at most `size - 1` negatives for each query."""
        return replace(settings, negatives_per_query=self.size - 1)

    def unpacked(self, table: pa.Table) -> np.ndarray:
        """Rows (N,) of a table; passages beyond `size` are left out, and an empty list gets -1 as its positive."""
        rows = np.zeros(len(table), self.kind)
        columns = {name: table.column(name).combine_chunks() for name in ("passage_ids", "scores")}
        lengths = columns["passage_ids"].value_lengths().to_numpy()
        rows["query_id"], rows["length"] = table.column("query_id").to_numpy(), lengths
        filled = np.arange(self.size) < lengths[:, None]  # (N, size)
        inside = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths) < self.size
        for name, column in columns.items():
            rows[name][filled] = column.flatten().to_numpy()[inside]
        rows["positive_id"] = np.where(lengths > 0, rows["passage_ids"][:, 0], -1)
        return rows
