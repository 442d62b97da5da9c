"""The BM25 index on disk, and exact top-k search over it.

Input: the directory that `pipeline.retrieval.bm25.build_index` filled. Output: the k best passages of each query, by
descending score, then by ascending passage id, also at the cut. A passage that shares no term with the query is never
returned. Chunks, batches and the number of processes do not change the result, not even its last bit.

A chunk holds up to 131,072 passages as postings sorted by term. A worker goes through all chunks with a batch of
queries: the postings stay in the processor's cache, and memory is one chunk plus up to 16 * k bytes for each query of
the batch. Larger batches open each chunk less often.
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
"""Ranks are stored as int16."""
_MAX_ID = np.int64(np.iinfo(np.int32).max)
_ABOVE_ZERO = np.finfo(np.float32).tiny

# Shapes: V terms of all queries, P postings and N passages of a chunk, M query terms of a batch,
# C candidates, R rows of a result.


class Retrieved(NamedTuple):
    """Ranked passages of some queries, sorted by query, then by rank."""

    query: np.ndarray  # (R,) int32, position in the texts the index was built for
    passage_id: np.ndarray  # (R,) int32
    rank: np.ndarray  # (R,) int16, from 1
    score: np.ndarray  # (R,) float32, above 0


@dataclass(frozen=True)
class Bm25Index:
    """An index on disk. Holds paths only: cheap to send to a worker, which maps the files into its memory."""

    directory: Path
    chunks: int

    def search(self, queries: range, k: int) -> Retrieved:
        """The k best passages of each query, or fewer if fewer match; runs in the calling process.

        Args:
            queries: positions in the texts the index was built for, ascending.
            k: number of passages per query, 1 to 32,767.

        Raises:
            UsageError: k is out of range.
        """
        _check_k(k)
        bounds, terms = self._query_terms(queries)
        best = [_Best(k) for _ in queries]
        for number in range(self.chunks):
            _search_chunk(Chunk(self.directory, number), bounds, terms, best)
        return _ranked(queries, [keys.sorted() for keys in best])

    def search_all(self, batches: Sequence[range], k: int, *, processes: int) -> Iterator[Retrieved]:
        """Results of each batch, in order; parallel processes work a few batches ahead.

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
        """Path of an array of the chunk."""
        return self._directory / f"{self._number:05d}.{name}.npy"

    def save(self, name: str, array: np.ndarray) -> None:
        """Write an array of the chunk."""
        np.save(self.path(name), array)

    def map(self, name: str) -> np.ndarray:
        """An array of the chunk, memory-mapped and read-only."""
        # Not an np.memmap: its slices cost microseconds each.
        return np.asarray(np.load(self.path(name), mmap_mode="r"))


class _Best:
    """Running top k of one query, as int64 keys that sort in the order of the results."""

    __slots__ = ("_count", "_k", "_keys", "floor")

    def __init__(self, k: int) -> None:
        self._k, self._count = k, 0
        self._keys: list[np.ndarray] = []
        self.floor = _ABOVE_ZERO
        """Passages with a lower score cannot enter the top k any more."""

    def add(self, keys: np.ndarray) -> None:
        """Add candidate keys, (C,) int64; at most 2 * k keys are kept."""
        self._keys.append(keys)
        self._count += len(keys)
        if self._count >= 2 * self._k:
            self._select()

    def sorted(self) -> np.ndarray:
        """Keys of the top k, best first."""
        if self._count > self._k:
            self._select()
        return np.sort(np.concatenate([np.empty(0, np.int64), *self._keys]))[::-1]

    def _select(self) -> None:
        keys = np.concatenate(self._keys)
        # Keys are distinct, and np.partition is slow only among equal values. The copy frees the other keys.
        keys = np.partition(keys, len(keys) - self._k)[-self._k :].copy()
        self._keys, self._count = [keys], len(keys)
        self.floor = _score_of(keys[:1])[0]


def _search_chunk(chunk: Chunk, bounds: list[int], terms: np.ndarray, best: list[_Best]) -> None:
    """Add the chunk's passages to the top k of each query; query q has terms[bounds[q] : bounds[q + 1]]."""
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
        # bm25s adds float32 values in the order of the query's terms, repeated terms again; another order would
        # differ in the last bit. Row numbers are int32, half the memory of int64; add.at was not slower with them.
        for start, stop in spans:
            np.add.at(scores, documents[start:stop], impacts[start:stop])
        candidates = np.flatnonzero(scores >= query.floor)  # (C,)
        if len(candidates):
            query.add(_key(scores[candidates], reversed_ids[candidates]))


def _key(scores: np.ndarray, reversed_ids: np.ndarray) -> np.ndarray:
    """Score and id in one int64: the bits of positive floats sort like integers."""
    keys: np.ndarray = (scores.view(np.int32).astype(np.int64) << 32) | reversed_ids
    return keys


def _score_of(keys: np.ndarray) -> np.ndarray:
    scores: np.ndarray = (keys >> 32).astype(np.int32).view(np.float32)
    return scores


def _ranked(queries: range, keys: list[np.ndarray]) -> Retrieved:
    counts = [len(of_query) for of_query in keys]
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
