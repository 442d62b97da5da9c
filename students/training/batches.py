"""Training batches as NumPy arrays of ids: the rows of a step are a function of seed, epoch and step alone.

Any step can be read directly, so a resumed run reads no row that came before. Knows no files: a source is handed
arrays, or a function that reads them part by part.

Shapes: B queries of a batch, R rows of a source, K candidates of each, the positive first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np


class Batch(NamedTuple):
    """B queries with K candidates each, the positive first."""

    query: np.ndarray  # (B,) int32
    passages: np.ndarray  # (B, K) int32
    teacher: np.ndarray | None  # (B, K) float32 raw logits, or None
    margin_std: np.ndarray | None = None  # (B,) float32 standard deviation of the teachers' margins, or None

    def take(self, rows: np.ndarray | slice) -> Batch:
        """The given rows, by number or as a slice."""
        return Batch(*(None if column is None else column[rows] for column in self))  # type: ignore[arg-type]

    @classmethod
    def joined(cls, batches: Sequence[Batch]) -> Batch:
        """One batch of all rows; the batches have the same columns."""
        columns = zip(*batches, strict=True)
        return cls(*(None if column[0] is None else np.concatenate(column) for column in columns))  # type: ignore[arg-type]


class BatchSource(Protocol):
    """Rows to train on."""

    rows: int
    """Rows of an epoch, R."""

    def batch(self, epoch: int, start: int, size: int) -> Batch:
        """Rows `start` to `start + size` (fewer at the end) in the order of the epoch."""


class ShuffledParts:
    """Rows in parts that are shuffled already: epoch 0 keeps their order, later epochs shuffle parts and rows again.

    Holds one part in memory at a time.
    """

    def __init__(self, read: Callable[[int], Batch], counts: Sequence[int], seed: int) -> None:
        """`read` returns all rows of a part by its number; `counts` are the rows of each part."""
        self._read, self._counts, self._seed = read, np.asarray(counts), seed
        self.rows = int(self._counts.sum())
        self._held: tuple[int, int] | None = None
        self._part_rows: Batch

    def batch(self, epoch: int, start: int, size: int) -> Batch:
        """See BatchSource."""
        order = self._part_order(epoch)
        ends = np.cumsum(self._counts[order])
        stop = min(start + size, self.rows)
        pieces = []
        while start < stop:
            position = int(np.searchsorted(ends, start, side="right"))
            first = int(ends[position] - self._counts[order[position]])
            end = min(stop, int(ends[position]))
            pieces.append(self._part(epoch, int(order[position])).take(slice(start - first, end - first)))
            start = end
        return Batch.joined(pieces)

    def _part_order(self, epoch: int) -> np.ndarray:
        if epoch == 0:
            return np.arange(len(self._counts))
        return np.random.default_rng((self._seed, epoch)).permutation(len(self._counts))

    def _part(self, epoch: int, number: int) -> Batch:
        if self._held != (epoch, number):
            self._part_rows = self._read(number)
            if epoch:
                rows = np.random.default_rng((self._seed, epoch, number)).permutation(int(self._counts[number]))
                self._part_rows = self._part_rows.take(rows)
            self._held = (epoch, number)
        return self._part_rows


class JudgedPairs:
    """Each judged positive once an epoch, with `negatives` retrieved passages that are not judged relevant.

    `random_negatives` more are drawn from what was retrieved for other queries: easy ones, from which a fresh
    cross-encoder first learns what matching is.
    """

    def __init__(
        self,
        query: np.ndarray,
        positive: np.ndarray,
        offsets: np.ndarray,
        pool: np.ndarray,
        *,
        negatives: int,
        random_negatives: int = 0,
        seed: int = 0,
    ) -> None:
        """Positives (R,) with their queries (R,); the negatives of row r are pool[offsets[r, 0] : offsets[r, 1]]."""
        self._query, self._positive, self._offsets, self._pool = query, positive, offsets, pool
        self._negatives, self._random_negatives, self._seed = negatives, random_negatives, seed
        self._relevant = _pair_keys(query, positive)
        self.rows = len(query)

    def batch(self, epoch: int, start: int, size: int) -> Batch:
        """See BatchSource."""
        rows = np.random.default_rng((self._seed, epoch)).permutation(self.rows)[start : start + size]  # (B,)
        first, end = self._offsets[rows, 0], self._offsets[rows, 1]
        random = np.random.default_rng((self._seed, epoch, start))
        draws = random.random((len(rows), self._negatives))
        hard = self._pool[(first[:, None] + draws * (end - first)[:, None]).astype(np.int64)]
        easy = self._pool[random.integers(0, len(self._pool), (len(rows), self._random_negatives))]
        # A passage of another query may be relevant to this query too: its first retrieved negative replaces it.
        relevant = np.isin(_pair_keys(self._query[rows, None], easy), self._relevant)
        easy = np.where(relevant, self._pool[first][:, None], easy)
        return Batch(self._query[rows], np.concatenate([self._positive[rows, None], hard, easy], axis=1), None)


def _pair_keys(query: np.ndarray, passage: np.ndarray) -> np.ndarray:
    """One int64 for each pair of int32 ids."""
    return np.asarray(query.astype(np.int64) << 32 | passage)
