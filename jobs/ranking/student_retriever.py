"""A student as a retriever, for mining, evaluation and search: exact, over stored passages or encoding as it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.models.stored_passages import StoredPassages
from pipeline.collection.texts import Texts
from pipeline.retrieval.bm25_index import Retrieved
from pipeline.retrieval.retrievers import SearchRequest
from pipeline.storage.workspace import Workspace
from students.identity import student_fingerprint
from teachers.settings import Dtype, ScoringSettings

if TYPE_CHECKING:
    from students.inference.encoded import Encoded
    from students.inference.scorer import SeparateScorer


@dataclass(frozen=True)
class StudentRetriever:
    """Exact search with a student; implements `pipeline.retrieval.retrievers.Retriever`."""

    workspace: Workspace
    system: str
    checkpoint: str
    dtype: Dtype = "float32"
    stored: StoredPassages | None = None
    """What `prep encode` made; None encodes the collection for this one search, and keeps nothing."""
    on_index: Callable[[int, int], None] = lambda done, total: None
    """Told passages searched so far, and all."""

    @cached_property
    def scorer(self) -> SeparateScorer:
        """The loaded student.

        Raises:
            ModelError: it reads query and passage together.
        """
        from students.inference.scorer import SeparateScorer

        return SeparateScorer.load(self.checkpoint, ScoringSettings(dtype=self.dtype))

    @property
    def settings(self) -> Mapping[str, Any]:
        """See Retriever: the student by what decides its scores."""
        return {"student": student_fingerprint(self.checkpoint, self.dtype)}

    def search(self, request: SearchRequest, batches: Sequence[range], k: int, scratch: Path) -> Iterator[Retrieved]:  # noqa: ARG002
        """See Retriever; holds the queries' states, Q x k keys and some passages.

        Raises:
            UsageError: the student is no retriever.
        """
        done = 0

        def count(new: int) -> None:
            nonlocal done
            done += new
            self.on_index(done, request.passage_count)

        scores, ids = self.scorer.search(request.texts, self._passages(), k, on_progress=count)
        kept = ids.shape[1]
        for batch in batches:
            yield Retrieved(
                np.repeat(np.array(batch, np.int32), kept),
                ids[batch.start : batch.stop].ravel().astype(np.int32),
                np.tile(np.arange(1, kept + 1, dtype=np.int16), len(batch)),
                scores[batch.start : batch.stop].ravel(),
            )

    def _passages(self) -> Iterator[Encoded]:
        if self.stored is not None:
            yield from self.stored.shards
            return
        for texts in Texts(self.workspace, "passages").chunks():
            yield from self.scorer.encode_in_chunks(self.scorer.passage_rows(texts))
