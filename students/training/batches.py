"""Training batches as arrays of ids: which rows make step s is a function of seed, epoch and step alone.

Three sources: triple shards and list shards with teacher scores, read as a stream, and judged pairs with retrieved
negatives. Any step can be asked for directly, so a resumed run reads nothing that came before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import duckdb
import numpy as np
import pyarrow.compute as pc

from pipeline import schemas
from pipeline.collection.selection import require_split, view_tables
from pipeline.errors import WorkspaceError
from pipeline.scores.pairs import PairSet
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.tables.database import view_parquet
from pipeline.tables.parts import open_part, read_part


class Batch(NamedTuple):
    """B queries with K candidates each, the positive first."""

    query: np.ndarray  # (B,) int32
    passages: np.ndarray  # (B, K) int32
    teacher: np.ndarray | None  # (B, K) float32 raw logits, or None
    margin_std: np.ndarray | None = None  # (B,) float32 deviation among the teachers' margins, or None


class BatchSource(Protocol):
    """Rows to train on."""

    rows: int

    def batch(self, epoch: int, start: int, size: int) -> Batch:
        """Rows start to start + size (fewer at the end) of an epoch's order."""


class _Shards(ABC):
    """Shards in their order on disk, which is shuffled; later epochs shuffle parts and rows again.

    Holds one part at a time.
    """

    def __init__(self, paths: Sequence[AnyPath], rows: Sequence[int], seed: int) -> None:
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
        return self._batch({name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]})

    @abstractmethod
    def _read(self, path: AnyPath) -> dict[str, np.ndarray]:
        """Columns (rows, ...) of a part."""

    @abstractmethod
    def _batch(self, columns: dict[str, np.ndarray]) -> Batch:
        """A batch from some rows of the columns."""

    def _part_order(self, epoch: int) -> np.ndarray:
        if epoch == 0:
            return np.arange(len(self._paths))
        return np.random.default_rng((self._seed, epoch)).permutation(len(self._paths))

    def _part(self, epoch: int, number: int) -> dict[str, np.ndarray]:
        if self._held != (epoch, number):
            self._columns = self._read(self._paths[number])
            if epoch:
                rows = np.random.default_rng((self._seed, epoch, number)).permutation(int(self._counts[number]))
                self._columns = {name: column[rows] for name, column in self._columns.items()}
            self._held = (epoch, number)
        return self._columns


class TripleShards(_Shards):
    """Triples with teacher scores: one negative each."""

    def _read(self, path: AnyPath) -> dict[str, np.ndarray]:
        names = ["query_id", "positive_id", "negative_id", "positive_score", "negative_score", "margin_std"]
        table, _ = read_part(path, schemas.TRIPLES, names)
        return {name: table.column(name).to_numpy() for name in names}

    def _batch(self, columns: dict[str, np.ndarray]) -> Batch:
        passages = np.stack([columns["positive_id"], columns["negative_id"]], axis=1)
        scores = np.stack([columns["positive_score"], columns["negative_score"]], axis=1)
        return Batch(columns["query_id"], passages, scores, columns["margin_std"])


class ListShards(_Shards):
    """Lists of several passages with teacher scores, the positive first; each is cut to the same size."""

    def __init__(self, paths: Sequence[AnyPath], rows: Sequence[int], seed: int, size: int) -> None:
        super().__init__(paths, rows, seed)
        self._size = size

    def _read(self, path: AnyPath) -> dict[str, np.ndarray]:
        file, _ = open_part(path)
        with file:
            table = file.read(columns=["query_id", "passage_ids", "scores"]).combine_chunks()
        query = table.column("query_id").to_numpy()
        shortest = pc.min(pc.list_value_length(table.column("passage_ids"))).as_py()
        if shortest is not None and shortest < self._size:
            raise WorkspaceError(
                "a list is shorter than asked for",
                where=path,
                expected=f"{self._size} passages",
                found=shortest,
                todo="lower --list-size, or build longer lists",
            )
        columns = {"query_id": query}
        for name in ("passage_ids", "scores"):
            cut = pc.list_slice(table.column(name), 0, self._size).combine_chunks()
            columns[name] = pc.list_flatten(cut).to_numpy().reshape(len(query), self._size)
        return columns

    def _batch(self, columns: dict[str, np.ndarray]) -> Batch:
        return Batch(columns["query_id"], columns["passage_ids"], columns["scores"].astype(np.float32))


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
            view_parquet(connection, "pairs", pairs.paths)
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
