"""Maps the row numbers of an export to texts or external ids, and remembers which rows were used.

Shapes: N rows to look up.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from pipeline.collection.texts import Texts
from pipeline.exports.rows import Groups
from pipeline.storage.workspace import Workspace
from pipeline.tables.parquet import read_columns

_ROWS_PER_BATCH = 16_384


class ExternalIdLookup:
    """Maps row numbers of queries or passages to external ids, which it holds in memory."""

    def __init__(self, workspace: Workspace, table: Literal["queries", "passages"]) -> None:
        columns = [read_columns(part, ["external_id"]) for part in workspace.parts(table)]
        self._external_ids = pa.concat_tables(columns).column("external_id")

    def take(self, ids: np.ndarray) -> pa.Array:
        """External ids (N,) of row numbers (N,)."""
        return self._external_ids.take(pa.array(ids)).combine_chunks()


class TextTable:
    """Texts and external ids of queries or passages; numbers those that are used from 0, in order of first use."""

    def __init__(self, workspace: Workspace, table: Literal["queries", "passages"]) -> None:
        self._texts, self._external_ids = Texts(workspace, table), ExternalIdLookup(workspace, table)
        self._numbers = np.full(len(self._texts), -1, np.int32)
        self._used: list[np.ndarray] = []

    def texts(self, ids: np.ndarray) -> list[str]:
        """Texts (N,) of rows (N,)."""
        return self._texts.take(ids)

    def names(self, ids: np.ndarray) -> pa.Array:
        """External ids (N,) of rows (N,)."""
        return self._external_ids.take(ids)

    def number(self, ids: np.ndarray) -> np.ndarray:
        """New numbers (N,) of rows (N,), which count as used from now on."""
        rows, first = np.unique(ids, return_index=True)
        rows = rows[np.argsort(first)]
        new = rows[self._numbers[rows] < 0]
        start = sum(map(len, self._used))
        self._numbers[new] = np.arange(start, start + len(new))
        self._used.append(new)
        numbers: np.ndarray = self._numbers[ids]
        return numbers

    def numbered(self) -> Iterator[tuple[pa.Array, list[str]]]:
        """Yields external ids and texts of all used rows, in the order of their new numbers."""
        used = np.concatenate([np.empty(0, np.int32), *self._used])
        for start in range(0, len(used), _ROWS_PER_BATCH):
            ids = used[start : start + _ROWS_PER_BATCH]
            yield self.names(ids), self.texts(ids)


@dataclass(frozen=True)
class TextLookup:
    """Maps ids to texts, or to external ids where the export has ids."""

    queries: TextTable
    passages: TextTable
    ids: bool
    """Whether the export has external ids in place of texts."""

    def query(self, ids: np.ndarray) -> pa.Array:
        """Texts or external ids (N,) of queries (N,)."""
        return self.queries.names(ids) if self.ids else pa.array(self.queries.texts(ids), pa.string())

    def passage(self, ids: np.ndarray) -> pa.Array:
        """Texts or external ids (N,) of passages (N,)."""
        return self.passages.names(ids) if self.ids else pa.array(self.passages.texts(ids), pa.string())

    def column(self, text: str, external: str) -> str:
        """The name of a column: `text` or `external`, whichever the export has."""
        return external if self.ids else text

    def named(self, group: Groups) -> dict[str, pa.Array]:
        """Columns of groups by external ids: query_id, passage_ids, scores."""
        return {
            "query_id": self.queries.names(group.query),
            "passage_ids": group.lists(self.passages.names(group.passage)),
            "scores": group.lists(pa.array(group.score)),
        }
