"""Retrievers, which find candidate passages for queries: BM25 and random choice.

Random candidates are useful: a student that sees only the hard negatives of BM25 forgets what the rest of the
collection looks like. Random passages, scored by the teachers like any other, add it to the triples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.retrieval.bm25 import build_index
from pipeline.retrieval.bm25_index import Retrieved
from pipeline.retrieval.bm25_postings import Postings
from pipeline.retrieval.settings import Bm25Settings
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import read_footers


@dataclass(frozen=True)
class SearchRequest:
    """A search: the queries, and the collection to search."""

    passages: Sequence[AnyPath]
    """Parquet files of the collection."""
    passage_count: int
    query_ids: np.ndarray
    """(Q,) int32"""
    texts: Sequence[str]
    """(Q,)"""

    @classmethod
    def of(cls, workspace: Workspace, texts: Sequence[str]) -> SearchRequest:
        """Search the workspace for any texts, with their positions as query ids."""
        passages = workspace.parts("passages")
        rows = sum(footer.rows for footer in read_footers(passages))
        return cls(passages, rows, np.arange(len(texts), dtype=np.int32), texts)


class Retriever(Protocol):
    """Finds passages for queries."""

    @property
    def system(self) -> str:
        """The retriever's name; its lists are stored under it."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything that shapes its lists besides collection, queries and k, as JSON values."""

    def search(self, request: SearchRequest, batches: Sequence[range], k: int, scratch: Path) -> Iterator[Retrieved]:
        """Yield the lists of each batch of positions in `request.query_ids`; `scratch` is a directory for its files."""


@dataclass(frozen=True)
class Bm25Retriever:
    """Exact BM25 over the whole collection."""

    shape: Bm25Settings = field(default_factory=Bm25Settings)
    processes: int = 1
    on_index: Callable[[int, int], None] = lambda done, total: None
    """Receives the number of passages indexed so far and the number of all passages."""
    system: str = "bm25"
    postings: Postings | None = None
    """Cached term counts of the collection; None counts the queries' terms by reading all texts."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """The BM25 parameters."""
        return asdict(self.shape)

    def search(self, request: SearchRequest, batches: Sequence[range], k: int, scratch: Path) -> Iterator[Retrieved]:
        """Build an index for the queries and search it, as `Retriever.search`."""
        if self.postings is not None:
            index = self.postings.index(request.texts, scratch, self.shape)
            yield from index.search_all(batches, k, processes=self.processes)
            return
        done = 0

        def count(new: int) -> None:
            nonlocal done
            done += new
            self.on_index(done, request.passage_count)

        index = build_index(
            request.passages, request.texts, scratch, self.shape, processes=self.processes, on_progress=count
        )
        yield from index.search_all(batches, k, processes=self.processes)


@dataclass(frozen=True)
class RandomRetriever:
    """Uniform draws from the collection without replacement; they depend on seed and query id alone."""

    seed: int = 0
    system: str = "random"

    @property
    def settings(self) -> Mapping[str, Any]:
        """The seed."""
        return {"seed": self.seed}

    def search(self, request: SearchRequest, batches: Sequence[range], k: int, scratch: Path) -> Iterator[Retrieved]:  # noqa: ARG002
        """Random lists, as `Retriever.search`; every score is 0."""
        k = min(k, request.passage_count)
        for batch in batches:
            drawn = [self._draw(int(query), request.passage_count, k) for query in request.query_ids[batch]]
            yield Retrieved(
                np.repeat(np.array(batch, np.int32), k),
                np.concatenate([np.empty(0, np.int32), *drawn]),
                np.tile(np.arange(1, k + 1, dtype=np.int16), len(batch)),
                np.zeros(k * len(batch), np.float32),
            )

    def _draw(self, query: int, passages: int, k: int) -> np.ndarray:
        """Passage ids (k,) int32, that is row numbers of the collection."""
        return np.random.default_rng((self.seed, query)).choice(passages, k, replace=False).astype(np.int32)
