"""The BM25 index on disk, and exact top-k search over it.

In: the directory that `pipeline.retrieval.bm25.build_index` filled. Out: for each query its k best passages, by score
descending, then passage id ascending, also at the cut; passages that share no term with it never. The result
is the same to the last bit whatever the chunks, the batches and the number of processes.

A chunk holds up to 131,072 passages as postings sorted by term. A worker walks over all chunks with a batch
of queries, so postings stay in cache, and memory is one chunk and the running best: up to 16 * k bytes for
each query of the batch. Larger batches open each chunk less often.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.errors import UsageError
from pipeline.processes import map_in_order

MAX_K = np.iinfo(np.int16).max
"""Ranks are int16."""
_MAX_ID = np.int64(np.iinfo(np.int32).max)
_ABOVE_ZERO = np.finfo(np.float32).tiny

# Shapes: V terms of all queries, P postings and N passages of a chunk, M query terms of a batch,
# C candidates, R rows of a result.


class Retrieved(NamedTuple):
    """Ranked passages of some queries: by query ascending, then by rank."""

    query: np.ndarray  # (R,) int32, position in the texts the index was built for
    passage_id: np.ndarray  # (R,) int32
    rank: np.ndarray  # (R,) int16, from 1
    score: np.ndarray  # (R,) float32, above 0


@dataclass(frozen=True)
class Bm25Index:
    """Paths only: cheap to send to a worker, which maps the files into its memory."""

    directory: Path
    chunks: int

    def search(self, queries: range, k: int) -> Retrieved:
        """The k best passages of each query, in the calling process; fewer where fewer match.

        Args:
            queries: positions in the texts the index was built for, ascending.
            k: how many, 1 to 32,767.

        Raises:
            UsageError: k is out of range.
        """
        _check_k(k)
        bounds, terms = self._query_terms(queries)
        best = [_Best(k) for _ in queries]
        for number in range(self.chunks):
            _search_chunk(Chunk(self.directory, number), bounds, terms, best)
        return _ranked(queries, [one.sorted() for one in best])

    def search_all(self, batches: Sequence[range], k: int, *, processes: int) -> Iterator[Retrieved]:
        """Results of each batch, in order, made by parallel processes a few batches ahead.

        Raises:
            UsageError: k is out of range.
            PrepError: a worker died.
        """
        _check_k(k)
        return map_in_order(partial(self.search, k=k), batches, processes=processes)

    def _query_terms(self, queries: range) -> tuple[list[int], np.ndarray]:
        offsets = np.load(self.directory / "query_offsets.npy", mmap_mode="r")
        flat = np.load(self.directory / "query_terms.npy", mmap_mode="r")
        parts = [flat[offsets[q] : offsets[q + 1]] for q in queries]
        bounds = np.cumsum([0, *map(len, parts)]).tolist()
        return bounds, np.concatenate([np.empty(0, np.int32), *parts])


class Chunk:
    """Files of one chunk: `<number>.<array>.npy`."""

    def __init__(self, directory: Path, number: int) -> None:
        self._directory, self._number = directory, number

    def path(self, name: str) -> Path:
        """Where an array of the chunk stands."""
        return self._directory / f"{self._number:05d}.{name}.npy"

    def save(self, name: str, array: np.ndarray) -> None:
        """Write an array of the chunk."""
        np.save(self.path(name), array)

    def map(self, name: str) -> np.ndarray:
        """An array of the chunk, memory-mapped and read-only."""
        # Not an np.memmap: its slices cost microseconds each.
        return np.asarray(np.load(self.path(name), mmap_mode="r"))


class _Best:
    """Running top k of one query, as keys whose order is the order of the results."""

    __slots__ = ("_count", "_k", "_keys", "floor")

    def __init__(self, k: int) -> None:
        self._k, self._count = k, 0
        self._keys: list[np.ndarray] = []
        self.floor = _ABOVE_ZERO
        """Scores below can no longer enter."""

    def add(self, keys: np.ndarray) -> None:
        """Offer candidates, (C,) int64; at most 2 * k are kept."""
        self._keys.append(keys)
        self._count += len(keys)
        if self._count >= 2 * self._k:
            self._select()

    def sorted(self) -> np.ndarray:
        """Keys of the best, best first."""
        if self._count > self._k:
            self._select()
        return np.sort(np.concatenate([np.empty(0, np.int64), *self._keys]))[::-1]

    def _select(self) -> None:
        keys = np.concatenate(self._keys)
        # Keys are distinct: partition is slow only among equal values. The copy lets the rest go.
        keys = np.partition(keys, len(keys) - self._k)[-self._k :].copy()
        self._keys, self._count = [keys], len(keys)
        self.floor = _score_of(keys[:1])[0]


def _search_chunk(chunk: Chunk, bounds: list[int], terms: np.ndarray, best: list[_Best]) -> None:
    """Offer the chunk's passages to each query's best; query q has terms[bounds[q] : bounds[q + 1]]."""
    indptr = chunk.map("indptr")  # (V + 1,)
    starts, stops = indptr[terms].tolist(), indptr[terms + 1].tolist()  # (M,)
    documents, impacts = chunk.map("documents"), chunk.map("impacts")  # (P,)
    reversed_ids = _MAX_ID - chunk.map("passage_ids")  # (N,) int64
    scores = np.zeros(len(reversed_ids), np.float32)  # (N,)
    for query, (first, last) in zip(best, pairwise(bounds), strict=True):
        spans = [(a, z) for a, z in zip(starts[first:last], stops[first:last], strict=True) if a < z]
        if not spans:
            continue
        scores.fill(0)
        # In the order of the query, a repeated term again, one float32 addition each: as bm25s sums. Rows are
        # int32: half the pages of int64, and add.at was no slower over whole batches.
        for start, stop in spans:
            np.add.at(scores, documents[start:stop], impacts[start:stop])
        candidates = np.flatnonzero(scores >= query.floor)  # (C,)
        if len(candidates):
            query.add(_key(scores[candidates], reversed_ids[candidates]))


def _key(scores: np.ndarray, reversed_ids: np.ndarray) -> np.ndarray:
    """Score and id in one int64: bits of positive floats order as integers do."""
    keys: np.ndarray = (scores.view(np.int32).astype(np.int64) << 32) | reversed_ids
    return keys


def _score_of(keys: np.ndarray) -> np.ndarray:
    scores: np.ndarray = (keys >> 32).astype(np.int32).view(np.float32)
    return scores


def _ranked(queries: range, keys: list[np.ndarray]) -> Retrieved:
    counts = [len(one) for one in keys]
    flat = np.concatenate([np.empty(0, np.int64), *keys])  # (R,)
    ranks = [np.arange(1, count + 1, dtype=np.int16) for count in counts]
    return Retrieved(
        query=np.repeat(np.array(queries, np.int32), counts),
        passage_id=(_MAX_ID - (flat & _MAX_ID)).astype(np.int32),
        rank=np.concatenate([np.empty(0, np.int16), *ranks]),
        score=_score_of(flat),
    )


def _check_k(k: int) -> None:
    if not 1 <= k <= MAX_K:
        raise UsageError("k is out of range", expected=f"1 to {MAX_K}", found=k)
