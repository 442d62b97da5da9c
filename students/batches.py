"""Training batches as arrays of ids: which rows make step s is a function of seed, epoch and step alone.

Two sources: triple shards with teacher scores, read as a stream, and judged pairs with retrieved negatives.
Any step can be asked for directly, so a resumed run reads nothing that came before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import duckdb
import numpy as np

from pipeline import schemas
from pipeline.errors import WorkspaceError
from pipeline.pairs import PairSet
from pipeline.selection import require_split, view_tables
from pipeline.tables import read_part
from pipeline.workspace import Workspace


class Batch(NamedTuple):
    """B queries with K candidates each, the positive first."""

    query: np.ndarray  # (B,) int32
    passages: np.ndarray  # (B, K) int32
    teacher: np.ndarray | None  # (B, K) float32 raw logits, or None


class BatchSource(Protocol):
    """Rows to train on."""

    rows: int

    def batch(self, epoch: int, start: int, size: int) -> Batch:
        """Rows start to start + size (fewer at the end) of an epoch's order."""


class TripleShards:
    """Triple shards in their order on disk, which is shuffled; later epochs shuffle parts and rows again.

    Holds one part at a time.
    """

    def __init__(self, paths: Sequence[Path], rows: Sequence[int], seed: int) -> None:
        self._paths, self._counts, self._seed = list(paths), np.asarray(rows), seed
        self.rows = int(self._counts.sum())
        self._held: tuple[int, int] | None = None
        self._columns: dict[str, np.ndarray] = {}

    def batch(self, epoch: int, start: int, size: int) -> Batch:
        """See BatchSource."""
        order = self._part_order(epoch)
        ends = np.cumsum(self._counts[order])
        stop = min(start + size, self.rows)
        pieces = []
        while start < stop:
            place = int(np.searchsorted(ends, start, side="right"))
            first = int(ends[place] - self._counts[order[place]])
            end = min(stop, int(ends[place]))
            columns = self._part(epoch, int(order[place]))
            pieces.append({name: column[start - first : end - first] for name, column in columns.items()})
            start = end
        joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        return Batch(
            joined["query_id"],
            np.stack([joined["positive_id"], joined["negative_id"]], axis=1),
            np.stack([joined["positive_score"], joined["negative_score"]], axis=1),
        )

    def _part_order(self, epoch: int) -> np.ndarray:
        if epoch == 0:
            return np.arange(len(self._paths))
        return np.random.default_rng((self._seed, epoch)).permutation(len(self._paths))

    def _part(self, epoch: int, number: int) -> dict[str, np.ndarray]:
        if self._held != (epoch, number):
            columns = ["query_id", "positive_id", "negative_id", "positive_score", "negative_score"]
            table, _ = read_part(self._paths[number], schemas.TRIPLES, columns)
            self._columns = {name: table.column(name).to_numpy() for name in columns}
            if epoch:
                rows = np.random.default_rng((self._seed, epoch, number)).permutation(table.num_rows)
                self._columns = {name: column[rows] for name, column in self._columns.items()}
            self._held = (epoch, number)
        return self._columns


class JudgedPairs:
    """Each judged positive once an epoch, with `negatives` retrieved passages that are not judged relevant.

    `random_negatives` more are drawn from what was retrieved for other queries: easy ones, from which a fresh
    cross-encoder learns first what matching is.
    """

    def __init__(
        self,
        query: np.ndarray,
        positive: np.ndarray,
        offsets: np.ndarray,
        pool: np.ndarray,
        *,
        negatives: int,
        random_negatives: int,
        seed: int,
    ) -> None:
        """Positives (R,) with their queries (R,); the negatives of row r are pool[offsets[r, 0] : offsets[r, 1]]."""
        self._query, self._positive, self._offsets, self._pool = query, positive, offsets, pool
        self._negatives, self._random_negatives, self._seed = negatives, random_negatives, seed
        self._relevant = _keys(query, positive)
        self.rows = len(query)

    @classmethod
    def load(
        cls,
        workspace: Workspace,
        pairs: PairSet,
        split: str,
        *,
        negatives: int,
        random_negatives: int = 0,
        seed: int = 0,
        relevance_level: int = 1,
    ) -> JudgedPairs:
        """Positives of a split and the retrieved negatives of their queries.

        Raises:
            WorkspaceError: no query has both.
        """
        with duckdb.connect() as connection:
            view_tables(connection, workspace, "queries")
            require_split(connection, split)
            connection.read_parquet([str(path) for path in pairs.paths]).create_view("pairs")
            chosen = "query_id IN (SELECT query_id FROM queries WHERE list_contains(splits, $split))"
            found = connection.execute(
                f"SELECT query_id, passage_id, coalesce(grade, 0) AS grade FROM pairs WHERE {chosen} "
                "ORDER BY query_id, passage_id",
                {"split": split},
            ).fetchnumpy()
        query, passage, grade = (np.asarray(found[name]) for name in ("query_id", "passage_id", "grade"))
        is_negative = grade <= 0
        pool, pool_query = passage[is_negative], query[is_negative]
        positive_query, positive = query[grade >= relevance_level], passage[grade >= relevance_level]
        offsets = np.stack([np.searchsorted(pool_query, positive_query, side) for side in ("left", "right")], axis=1)
        usable = offsets[:, 1] > offsets[:, 0]
        if not usable.any():
            raise WorkspaceError(
                f"no query of split {split!r} has both a positive and a negative",
                found=f"{len(positive)} positives, {len(pool)} negatives",
                todo="mine the split and build the pairs again",
            )
        return cls(
            positive_query[usable],
            positive[usable],
            offsets[usable],
            pool,
            negatives=negatives,
            random_negatives=random_negatives,
            seed=seed,
        )

    def batch(self, epoch: int, start: int, size: int) -> Batch:
        """See BatchSource."""
        rows = np.random.default_rng((self._seed, epoch)).permutation(self.rows)[start : start + size]
        first, end = self._offsets[rows, 0], self._offsets[rows, 1]
        random = np.random.default_rng((self._seed, epoch, start))
        draws = random.random((len(rows), self._negatives))
        own = self._pool[(first[:, None] + draws * (end - first)[:, None]).astype(np.int64)]
        others = self._pool[random.integers(0, len(self._pool), (len(rows), self._random_negatives))]
        # A passage of another query may be relevant here too; the query's first negative takes its place.
        relevant = np.isin(_keys(self._query[rows, None], others), self._relevant)
        others = np.where(relevant, self._pool[first][:, None], others)
        return Batch(self._query[rows], np.concatenate([self._positive[rows, None], own, others], axis=1), None)


def _keys(query: np.ndarray, passage: np.ndarray) -> np.ndarray:
    return np.asarray(query.astype(np.int64) << 32 | passage)
