"""An in-batch teacher: scores each query of a batch with all passages of the batch, during training.

Only students that encode query and passage separately can be in-batch teachers: they encode B queries and N passages,
and all B x N scores cost hardly more. Hofstätter et al. 2021 (arXiv 2104.06967) combine a ColBERT with cross-encoders
in this way.

Shapes: B queries, N passages.
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
        """`stored` returns states that were encoded before; without it, the passages of each batch are encoded."""
        self._scorer, self._tokens = scorer, tokens
        self._take = stored or self._encode

    def scores(self, query_ids: NDArray[np.integer], passage_ids: NDArray[np.integer]) -> NDArray[np.float32]:
        """Scores (B, N) of queries (B,) with passages (N,), given by id, times the scale of the teacher's training."""
        queries, query = np.unique(query_ids, return_inverse=True)
        passages, passage = np.unique(passage_ids, return_inverse=True)
        states = self._scorer.encode_query_rows(TextRows(self._tokens.queries, queries))
        scores: NDArray[np.float32] = self._scorer.score_all(states, self._take(passages))[np.ix_(query, passage)]
        scores *= np.float32(self._scorer.student.training_scale)
        return scores

    def _encode(self, ids: NDArray[np.integer]) -> Encoded:
        return self._scorer.encode_passage_rows(TextRows(self._tokens.passages, ids))
