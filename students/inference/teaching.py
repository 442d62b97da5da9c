"""A trained student that encodes query and passage separately, as a teacher: the interface of `CrossEncoderScorer`.

Its scores are those of its training, cosines times the scale, so that students can match their margins. Maximum lengths
are those of the student.

Shapes: N pairs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.tokens.pairs import TokenizedTexts
from students.architectures.separate import SeparateStudent
from students.identity import apart_fingerprint
from students.inference.encoded import TakeEncoded
from students.inference.loading import load_student
from students.inference.scorer import SeparateScorer
from students.token_rows import TextRows
from teachers.checkpoints.checkpoint import Checkpoint, resolve
from teachers.engine.certificate import certify
from teachers.engine.engine import Scored
from teachers.scorer import Pairs, ProgressReporter, Work
from teachers.settings import ScoringSettings


class TokenPairs(NamedTuple):
    """N pairs over unique tokenised texts."""

    queries: TextRows
    passages: TextRows
    query: NDArray[np.integer]
    """(N,) row in `queries`."""
    passage: NDArray[np.integer]
    """(N,) row in `passages`."""
    by_id: bool = False
    """Whether the rows of the texts are the ids of queries and passages."""

    @classmethod
    def over(
        cls,
        queries: TokenizedTexts,
        passages: TokenizedTexts,
        query: NDArray[np.integer],
        passage: NDArray[np.integer],
    ) -> TokenPairs:
        """Pairs (N,), given as rows of texts; repeated rows are held once."""
        query_rows, first = np.unique(query, return_inverse=True)
        passage_rows, second = np.unique(passage, return_inverse=True)
        return cls(TextRows(queries, query_rows), TextRows(passages, passage_rows), first, second)

    def take(self, rows: NDArray[np.int64]) -> TokenPairs:
        """The chosen pairs (n,), over their texts only."""
        query, passage = self.queries.rows[self.query[rows]], self.passages.rows[self.passage[rows]]
        return TokenPairs.over(self.queries.texts, self.passages.texts, query, passage)._replace(by_id=self.by_id)


class SeparateTeacher:
    """A loaded student that scores shards as a teacher."""

    assembles = True
    """It scores from token ids, without the texts."""

    def __init__(
        self, checkpoint: str | Checkpoint, settings: ScoringSettings, stored: TakeEncoded | None = None
    ) -> None:
        """Load it. `stored` gives passages that were encoded before, in the same arithmetic.

        Raises:
            ModelError: not there, or a cross-encoder.
        """
        self._checkpoint, self._settings, self._stored = resolve(checkpoint), settings, stored
        self._checkpoint.definition.check_runs()
        self._scorer = SeparateScorer.load(self._checkpoint, settings)
        self.fingerprint = apart_fingerprint(self._checkpoint, settings.dtype, self._scorer.student.prompts)
        """Identity of the scores."""

    def describe(self) -> dict[str, Any]:
        """The facts that determine the scores, as JSON values for a footer."""
        found, student = self._checkpoint, self._scorer.student
        return {
            "teacher": found.name,
            "revision": found.revision,
            "weights_hash": found.weights_hash,
            "form": student.name,
            "tokenizer": type(student.tokenizer).__name__,
            "tokenizer_hash": found.tokenizer_hash,
            "max_query_tokens": student.settings.max_query_tokens,
            "max_passage_tokens": student.settings.max_passage_tokens,
            "prompts": list(student.prompts),
            "scale": student.training_scale,
            "activation": "identity",
            "dtype": self._settings.dtype,
        }

    def shown(self, query: str, passage: str) -> str:
        """A pair as the model reads it: the token ids of both texts as text, special tokens included."""
        student = self._scorer.student
        inputs = (
            student.query_inputs(self._scorer.query_rows([query])),
            student.passage_inputs(self._scorer.passage_rows([passage])),
        )
        return "\n".join(str(student.tokenizer.decode(one["input_ids"][0].tolist())) for one in inputs)

    def encode(self, pairs: Pairs) -> TokenPairs:
        """The tokens of pairs (N,)."""
        queries, passages = self._scorer.query_rows(pairs.queries), self._scorer.passage_rows(pairs.passages)
        return TokenPairs(queries, passages, pairs.query, pairs.passage)

    def assemble(
        self,
        texts: tuple[TokenizedTexts, TokenizedTexts],
        pairs: tuple[NDArray[np.integer], NDArray[np.integer]],
    ) -> TokenPairs:
        """The tokens of pairs, given as ids (N,) of queries and ids (N,) of passages in the tokenised `texts`."""
        return TokenPairs.over(*texts, *pairs)._replace(by_id=True)

    def score_encoded(
        self,
        encoded: TokenPairs,
        on_progress: Callable[[Work], None] | None = None,
        *,
        sample: NDArray[np.int64] | None = None,
    ) -> Scored:
        """Score pairs (N,); see `teachers.engine.engine.CrossEncoderScorer.score_encoded`.

        Raises:
            ModelError: a score is not finite, or scores in a low precision deviate too far from float32.
        """
        reporter = ProgressReporter(on_progress)
        started = time.perf_counter()

        def tell(work: Work) -> None:
            nonlocal started
            passed, started = time.perf_counter() - started, time.perf_counter()
            reporter.report(replace(work, busy_seconds=passed, seconds=passed))

        facts: dict[str, Any] = {}
        scores = self._scores(self._scorer, encoded, tell, self._stored if encoded.by_id else None)
        if sample is not None and len(sample) and self._settings.dtype != "float32":
            exact = self._scores(self._exact, encoded.take(sample), lambda work: tell(Work()))
            certificate = certify(scores[sample], exact)
            certificate.check(self._settings.dtype, self._checkpoint.name)
            facts["certificate"] = certificate.as_dict()
        return Scored(scores, facts)

    @cached_property
    def _exact(self) -> SeparateScorer:
        return SeparateScorer.load(self._checkpoint, replace(self._settings, dtype="float32"))

    @staticmethod
    def _scores(
        scorer: SeparateScorer,
        pairs: TokenPairs,
        on_progress: Callable[[Work], None] | None = None,
        stored: TakeEncoded | None = None,
    ) -> NDArray[np.float32]:
        scores = scorer.score_rows(pairs.queries, pairs.passages, pairs.query, pairs.passage, on_progress, stored)
        scores *= np.float32(scorer.student.training_scale)
        return scores


def plain_apart_scores(checkpoint: str, pairs: Pairs, prompts: tuple[str, str] | None = None) -> NDArray[np.float32]:
    """Scores (N,) that `SeparateTeacher` must reproduce, from one pair at a time in float32."""
    student = load_student(checkpoint)
    assert isinstance(student, SeparateStudent)
    student.prompts = student.prompts if prompts is None else prompts
    scores = [
        student.score([pairs.queries[query]], [pairs.passages[passage]]).item() * student.training_scale
        for query, passage in zip(pairs.query, pairs.passage, strict=True)
    ]
    return np.array(scores, np.float32)
