"""A teacher at work during training: scores of each query of a batch with all of its passages.

Only students that read query and passage apart can be that: B queries and N passages are encoded, and all B x N pairs
cost next to nothing. Hofstätter et al. 2021 (arXiv 2104.06967) set a ColBERT beside cross-encoders so.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from students.inference.encoded import Encoded, TakeEncoded
from students.inference.scorer import SeparateScorer
from students.token_rows import TextRows, Tokens


class InBatchTeacher:
    """A trained student in eval mode, with the token ids of its own tokenizer."""

    def __init__(self, scorer: SeparateScorer, tokens: Tokens, stored: TakeEncoded | None = None) -> None:
        """`stored` gives states that were made before; without it passages are encoded batch by batch."""
        self._scorer, self._tokens = scorer, tokens
        self._take = stored or self._encode

    def scores(self, query_ids: NDArray[np.integer], passage_ids: NDArray[np.integer]) -> NDArray[np.float32]:
        """Scores (B, N) of queries (B,) with passages (N,), times the scale that the teacher was trained with."""
        queries, query = np.unique(query_ids, return_inverse=True)
        passages, passage = np.unique(passage_ids, return_inverse=True)
        own = self._scorer.encode_query_rows(TextRows(self._tokens.queries, queries))
        scores: NDArray[np.float32] = self._scorer.score_all(own, self._take(passages))[np.ix_(query, passage)]
        scores *= np.float32(self._scorer.student.training_scale)
        return scores

    def _encode(self, ids: NDArray[np.integer]) -> Encoded:
        return self._scorer.encode_passage_rows(TextRows(self._tokens.passages, ids))
