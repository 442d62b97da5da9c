"""What stands for ids in an export: texts or external ids; and the texts of all rows that were used.

Shapes: N rows asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from pipeline.collection.texts import Texts
from pipeline.exports.rows import Groups, Names
from pipeline.storage.workspace import Workspace

_ROWS_PER_BATCH = 16_384


class TextTable:
    """Queries or passages by row number; those that are used are numbered anew, from 0, as they come."""

    def __init__(self, workspace: Workspace, table: Literal["queries", "passages"]) -> None:
        self._texts, self._names = Texts(workspace, table), Names(workspace, table)
        self._numbers = np.full(len(self._texts), -1, np.int32)
        self._used: list[np.ndarray] = []

    def texts(self, ids: np.ndarray) -> list[str]:
        """Texts (N,) of rows (N,)."""
        return self._texts.take(ids)

    def names(self, ids: np.ndarray) -> pa.Array:
        """External ids (N,) of rows (N,)."""
        return self._names.take(ids)

    def number(self, ids: np.ndarray) -> np.ndarray:
        """New numbers (N,) of rows (N,)."""
        rows, first = np.unique(ids, return_index=True)
        rows = rows[np.argsort(first)]
        new = rows[self._numbers[rows] < 0]
        start = sum(map(len, self._used))
        self._numbers[new] = np.arange(start, start + len(new))
        self._used.append(new)
        numbers: np.ndarray = self._numbers[ids]
        return numbers

    def numbered(self) -> Iterator[tuple[pa.Array, list[str]]]:
        """External ids and texts of all rows that have a number, by number."""
        used = np.concatenate([np.empty(0, np.int32), *self._used])
        for start in range(0, len(used), _ROWS_PER_BATCH):
            ids = used[start : start + _ROWS_PER_BATCH]
            yield self.names(ids), self.texts(ids)


@dataclass(frozen=True)
class TextLookup:
    """What ids stand for."""

    queries: TextTable
    passages: TextTable
    ids: bool
    """Whether external ids are written in place of texts."""

    def query(self, ids: np.ndarray) -> pa.Array:
        """Texts or external ids (N,) of queries."""
        return self.queries.names(ids) if self.ids else pa.array(self.queries.texts(ids), pa.string())

    def passage(self, ids: np.ndarray) -> pa.Array:
        """Texts or external ids (N,) of passages."""
        return self.passages.names(ids) if self.ids else pa.array(self.passages.texts(ids), pa.string())

    def column(self, text: str, external: str) -> str:
        """Name of a column with either."""
        return external if self.ids else text

    def named(self, group: Groups) -> dict[str, pa.Array]:
        """Groups as a table of external ids: query_id, passage_ids, scores."""
        return {
            "query_id": self.queries.names(group.query),
            "passage_ids": group.lists(self.passages.names(group.passage)),
            "scores": group.lists(pa.array(group.score)),
        }
