"""A student as a retriever for mining: exhaustive search, whose lists feed the next round of pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.bm25_index import Retrieved
from pipeline.parquet import open_parquet
from pipeline.retrievers import Asked
from pipeline.store import AnyPath
from teachers.settings import ScoringSettings

if TYPE_CHECKING:
    from students.encoding import SeparateScorer

PASSAGES_PER_READ = 16_384


@dataclass(frozen=True)
class StudentRetriever:
    """Exact search with a student; implements `pipeline.retrievers.Retriever`."""

    system: str
    checkpoint: str
    scoring: ScoringSettings = field(default_factory=ScoringSettings)
    on_index: Callable[[int, int], None] = lambda done, total: None
    """Told passages searched so far, and all."""

    @cached_property
    def _scorer(self) -> SeparateScorer:
        from students.encoding import SeparateScorer

        return SeparateScorer.load(self.checkpoint, self.scoring)

    @property
    def settings(self) -> Mapping[str, Any]:
        """See Retriever: the student by what decides its scores."""
        return {"student": self._scorer.fingerprint}

    def search(self, asked: Asked, batches: Sequence[range], k: int, scratch: Path) -> Iterator[Retrieved]:  # noqa: ARG002
        """See Retriever; holds Q x k keys and some thousand passages.

        Raises:
            UsageError: the student is no retriever.
            ModelError: it reads query and passage together.
        """
        done = 0

        def count(new: int) -> None:
            nonlocal done
            done += new
            self.on_index(done, asked.passage_count)

        scores, ids = self._scorer.search(asked.texts, _texts(asked.passages), k, on_progress=count)
        kept = ids.shape[1]
        for batch in batches:
            yield Retrieved(
                np.repeat(np.array(batch, np.int32), kept),
                ids[batch.start : batch.stop].ravel().astype(np.int32),
                np.tile(np.arange(1, kept + 1, dtype=np.int16), len(batch)),
                scores[batch.start : batch.stop].ravel(),
            )


def _texts(paths: Sequence[AnyPath]) -> Iterator[list[str]]:
    """All texts by ascending id."""
    for path in paths:
        with open_parquet(path) as file:
            for batch in file.iter_batches(PASSAGES_PER_READ, columns=["text"]):
                yield batch.column(0).to_pylist()
