"""What finds candidates for queries: BM25, and chance.

Chance has its use: a student that learns only from what BM25 confuses forgets how the rest of the collection
looks. Random passages, scored by the teachers like any other, keep that in the triples.
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
from pipeline.tables.parts import set_footers


@dataclass(frozen=True)
class Asked:
    """What is searched, and where."""

    passages: Sequence[AnyPath]
    """Parquet files of the collection."""
    passage_count: int
    query_ids: np.ndarray
    """(Q,) int32"""
    texts: Sequence[str]
    """(Q,)"""

    @classmethod
    def of(cls, workspace: Workspace, texts: Sequence[str]) -> Asked:
        """Texts that need not be queries of the workspace; the ids are their positions."""
        passages = workspace.parts("passages")
        rows = sum(footer.rows for footer in set_footers(passages))
        return cls(passages, rows, np.arange(len(texts), dtype=np.int32), texts)


class Retriever(Protocol):
    """Finds passages for queries."""

    @property
    def system(self) -> str:
        """Its name, under which the lists stand."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """All that decides its lists, beside collection, queries and k; JSON values."""

    def search(self, asked: Asked, batches: Sequence[range], k: int, scratch: Path) -> Iterator[Retrieved]:
        """For each batch of positions in `asked.query_ids`, its lists; `scratch` is an empty directory to write in."""


@dataclass(frozen=True)
class Bm25Retriever:
    """Exact BM25 over the whole collection."""

    shape: Bm25Settings = field(default_factory=Bm25Settings)
    processes: int = 1
    on_index: Callable[[int, int], None] = lambda done, total: None
    """Told passages indexed so far, and all."""
    system: str = "bm25"
    postings: Postings | None = None
    """Counts of the collection that were kept; None reads the texts, for the words of the queries alone."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """See Retriever."""
        return asdict(self.shape)

    def search(self, asked: Asked, batches: Sequence[range], k: int, scratch: Path) -> Iterator[Retrieved]:
        """See Retriever."""
        if self.postings is not None:
            index = self.postings.index(asked.texts, scratch, self.shape)
            yield from index.search_all(batches, k, processes=self.processes)
            return
        done = 0

        def count(new: int) -> None:
            nonlocal done
            done += new
            self.on_index(done, asked.passage_count)

        index = build_index(
            asked.passages, asked.texts, scratch, self.shape, processes=self.processes, on_progress=count
        )
        yield from index.search_all(batches, k, processes=self.processes)


@dataclass(frozen=True)
class RandomRetriever:
    """Passages drawn evenly from the collection, none twice for a query; the draw depends on seed and query id."""

    seed: int = 0
    system: str = "random"

    @property
    def settings(self) -> Mapping[str, Any]:
        """See Retriever."""
        return {"seed": self.seed}

    def search(self, asked: Asked, batches: Sequence[range], k: int, scratch: Path) -> Iterator[Retrieved]:  # noqa: ARG002
        """See Retriever; every score is 0."""
        k = min(k, asked.passage_count)
        for batch in batches:
            drawn = [self._draw(int(query), asked.passage_count, k) for query in asked.query_ids[batch]]
            yield Retrieved(
                np.repeat(np.array(batch, np.int32), k),
                np.concatenate([np.empty(0, np.int32), *drawn]),
                np.tile(np.arange(1, k + 1, dtype=np.int16), len(batch)),
                np.zeros(k * len(batch), np.float32),
            )

    def _draw(self, query: int, passages: int, k: int) -> np.ndarray:
        """Passage ids (k,): row numbers of the collection."""
        return np.random.default_rng((self.seed, query)).choice(passages, k, replace=False).astype(np.int32)
