"""Inference with a student that encodes query and passage separately: encodes texts, scores pairs, searches.

Batches hold texts of similar length under a token budget. Implements `teachers.scorer.Scorer`, so evaluation and search
treat students and teachers alike.

Shapes: N texts or pairs, Q queries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ModelError, UsageError
from students.architectures.one_vector import OneVectorStudent
from students.architectures.separate import SeparateStudent, States
from students.identity import student_fingerprint
from students.inference.encoded import Encoded, TakeEncoded
from students.inference.loading import load_student
from students.inference.ranking import Ranked
from students.inference.search import search_encoded
from students.token_rows import Frame, TextRows
from teachers.checkpoints.checkpoint import Checkpoint, resolve
from teachers.engine.batching import PADDING_SHARE, plan_batches
from teachers.engine.device import DTYPES, batch_tokens, choose_device
from teachers.engine.padding import PROBES, Together, rows_together
from teachers.scorer import Pairs, Work
from teachers.settings import ScoringSettings

Result = TypeVar("Result")
PASSAGES_PER_CHUNK = 4096
TOKENS_OF_ONE, TOKENS_OF_MANY = 1 << 20, 1 << 18
"""Tokens of the passages that are encoded at once: with one vector for each passage, and with many."""


class SeparateScorer:
    """A student in eval mode on a device."""

    def __init__(self, student: SeparateStudent, settings: ScoringSettings, fingerprint: str = "") -> None:
        self.student, self.fingerprint = student, fingerprint
        self._device = choose_device(settings)
        self._dtype = DTYPES[settings.dtype]
        self._budget = batch_tokens(settings, self._device)
        student.to(self._device).eval()
        self._together = self._rows_together()

    @classmethod
    def load(cls, checkpoint: str | Checkpoint, settings: ScoringSettings) -> SeparateScorer:
        """From a directory or a Hub name.

        Raises:
            ModelError: it reads query and passage together, or its maximum length exceeds its positions.
        """
        found = resolve(checkpoint)
        student = load_student(found)
        if not isinstance(student, SeparateStudent):
            raise ModelError("reads query and passage together", where=found.name, found=student.name)
        student.check_lengths()
        student.prompts = found.definition.applied(settings).prompts
        return cls(student, settings, student_fingerprint(found, settings.dtype, student.prompts))

    def query_rows(self, texts: Sequence[str]) -> TextRows:
        """Tokenised queries, prompts included."""
        return TextRows.of(self.student.tokenizer, texts, self.student.prompts[0])

    def passage_rows(self, texts: Sequence[str]) -> TextRows:
        """Tokenised passages, prompts included."""
        return TextRows.of(self.student.tokenizer, texts, self.student.prompts[1])

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        """States of queries."""
        return self.encode_query_rows(self.query_rows(texts))

    def encode_query_rows(self, queries: TextRows) -> Encoded:
        """States of tokenised queries."""
        return self._encode(queries, self.student.query_frame, queries=True)

    def encode_passages(self, texts: Sequence[str]) -> Encoded:
        """States of passages."""
        return self.encode_passage_rows(self.passage_rows(texts))

    def encode_passage_rows(self, passages: TextRows) -> Encoded:
        """States of tokenised passages."""
        return self._encode(passages, self.student.passage_frame, queries=False)

    def encode_in_chunks(
        self, passages: TextRows, on_progress: Callable[[int], None] = lambda done: None
    ) -> Iterator[Encoded]:
        """States of tokenised passages in order, in chunks that bound memory."""
        frame = self.student.passage_frame
        chunk_tokens = TOKENS_OF_ONE if isinstance(self.student, OneVectorStudent) else TOKENS_OF_MANY
        chunk = np.cumsum(frame.lengths(passages).clip(1)) // chunk_tokens
        for rows in np.split(np.arange(len(chunk)), np.flatnonzero(np.diff(chunk)) + 1):
            if len(rows):
                some = passages.take(rows)
                yield self._encode(some, frame, queries=False, on_progress=lambda done: on_progress(len(done)))

    def score(self, pairs: Pairs, on_progress: Callable[[Work], None] | None = None) -> NDArray[np.float32]:
        """Scores (N,) of pairs; see `score_rows`."""
        queries, passages = self.query_rows(pairs.queries), self.passage_rows(pairs.passages)
        return self.score_rows(queries, passages, pairs.query, pairs.passage, on_progress)

    def score_rows(
        self,
        queries: TextRows,
        passages: TextRows,
        query: NDArray[np.integer],
        passage: NDArray[np.integer],
        on_progress: Callable[[Work], None] | None = None,
        stored: TakeEncoded | None = None,
    ) -> NDArray[np.float32]:
        """Scores (N,) of pairs of tokenised texts, by their row in `queries` (N,) and in `passages` (N,).

        Every text is encoded once; memory holds the states of `PASSAGES_PER_CHUNK` passages. With `stored`, the rows of
        `passages` are ascending ids, whose states are read instead of encoded.

        `on_progress` receives the work of every batch, texts encoded (no pairs) and pairs compared (no tokens): a
        chunk can take longer than a cluster waits for a sign of life.

        Raises:
            ModelError: a state or a score is not finite.
        """
        report = on_progress or (lambda work: None)
        frame = self.student.query_frame
        query_states = self._encode(queries, frame, queries=True, on_progress=lambda done: report(Work()))
        lengths = self.student.passage_frame.lengths(passages)
        scores = np.empty(len(query), np.float32)
        order = np.argsort(passage, kind="stable")
        for start in range(0, len(passages.rows), PASSAGES_PER_CHUNK):
            chunk = np.arange(start, min(start + PASSAGES_PER_CHUNK, len(passages.rows)))
            first, last = np.searchsorted(passage[order], [start, start + len(chunk)])
            rows = order[first:last]
            states = self._passage_states(passages.take(chunk), stored, lengths[chunk], report)
            here = query[rows], passage[rows] - start
            scores[rows] = self.score_encoded(query_states, states, *here, lambda done: report(Work(done)))
        return scores

    def _passage_states(
        self,
        passages: TextRows,
        stored: TakeEncoded | None,
        lengths: NDArray[np.integer],
        report: Callable[[Work], None],
    ) -> Encoded:
        """States of some passages, stored or encoded; reports their tokens, given their lengths (N,)."""
        if stored is not None:
            states = stored(passages.rows)
            report(Work(tokens=int(lengths.sum())))
            return states
        frame = self.student.passage_frame
        return self._encode(
            passages, frame, queries=False, on_progress=lambda rows: report(Work(tokens=int(lengths[rows].sum())))
        )

    @torch.inference_mode()
    def score_encoded(
        self,
        queries: Encoded,
        passages: Encoded,
        query: NDArray[np.integer],
        passage: NDArray[np.integer],
        on_progress: Callable[[int], None] = lambda done: None,
    ) -> NDArray[np.float32]:
        """Scores (N,) of pairs, given as rows of encoded queries and passages; reports the pairs of each batch.

        Raises:
            ModelError: a score is not finite.
        """
        query, passage = query.astype(np.int64), passage.astype(np.int64)
        lengths = (queries.lengths.numpy()[query] + passages.lengths.numpy()[passage]).clip(1)
        scores = np.empty(len(query), np.float32)

        def interact(rows: NDArray[np.integer]) -> NDArray[np.float32]:
            query_states = queries.padded(torch.from_numpy(query[rows]), self._device)
            passage_states = passages.padded(torch.from_numpy(passage[rows]), self._device)
            return self.student.interact(query_states, passage_states).float().cpu().numpy()

        for rows, batch_scores in self._batches(lengths, interact):
            scores[rows] = batch_scores
            on_progress(len(rows))
        if not np.isfinite(scores).all():
            raise ModelError("scores are not finite", found="overflow in the student", todo="use float32")
        return scores

    @torch.inference_mode()
    def score_all(self, queries: Encoded, passages: Encoded) -> NDArray[np.float32]:
        """Scores (Q, N) of encoded queries with all encoded passages.

        Raises:
            ModelError: a score is not finite.
        """
        query_states, passage_states = (
            states.padded(torch.arange(states.count), self._device) for states in (queries, passages)
        )
        with self._autocast():
            scores = self.student.interact_all(query_states, passage_states).float().cpu().numpy()
        if not np.isfinite(scores).all():
            raise ModelError("scores are not finite", found="overflow in the student", todo="use float32")
        return scores

    def search(
        self,
        queries: Sequence[str],
        passages: Iterable[Encoded],
        k: int,
        on_progress: Callable[[int], None] = lambda done: None,
    ) -> Ranked:
        """Exact top `k` of all encoded passages: scores (Q, k) and ids (Q, k); ids number the passages from 0.

        Raises:
            UsageError: the architecture cannot retrieve from a collection.
        """
        if not self.student.searches:
            raise UsageError(f"{self.student.name} is no retriever", todo="let it re-rank candidates")
        return search_encoded(
            self.student, self.encode_queries(queries), passages, k, self._device, on_progress=on_progress
        )

    def _batches(
        self,
        lengths: NDArray[np.integer],
        run: Callable[[NDArray[np.integer]], Result],
        together: Together = "padded",
    ) -> Iterator[tuple[NDArray[np.integer], Result]]:
        """Rows (n,) of each batch and the result of `run` for them; a batch that does not fit into memory is halved.

        Raises:
            torch.OutOfMemoryError: a single row does not fit.
        """
        budget, padding = 1 if together == "alone" else self._budget, PADDING_SHARE if together == "padded" else 0.0
        waiting = list(reversed(plan_batches(lengths, budget, padding))) if len(lengths) else []
        while waiting:
            rows = waiting.pop()
            try:
                with self._autocast():
                    result = run(rows)
            except torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise
                waiting += reversed(np.array_split(rows, 2))
            else:
                yield rows, result
                continue
            if self._device.type == "cuda":  # after the except block, which holds the failed batch's tensors
                torch.cuda.empty_cache()

    def _rows_together(self) -> Together:
        """Which texts may share a batch of the encoder, from its states in float32."""
        texts = TextRows.of(self.student.tokenizer, [passage for _, passage in PROBES])

        @torch.inference_mode()
        def run(rows: NDArray[np.int64]) -> NDArray[np.floating]:
            inputs = self.student.passage_inputs(texts.take(rows))
            states = self.student.encode_passages(**{name: ids.to(self._device) for name, ids in inputs.items()})
            kept = states.values * states.mask.unsqueeze(-1)
            return torch.cat([states.values[:, 0], kept.sum(1)], dim=1).float().cpu().numpy()  # (B, 2 D)

        name = getattr(getattr(self.student.encoder, "config", None), "name_or_path", "") or self.student.name
        return rows_together(run, self.student.passage_frame.lengths(texts), name, can_pad=True)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32)

    @torch.inference_mode()
    def _encode(
        self,
        tokens: TextRows,
        frame: Frame,
        *,
        queries: bool,
        on_progress: Callable[[NDArray[np.integer]], None] = lambda rows: None,
    ) -> Encoded:
        """States of tokenised texts; `on_progress` receives the rows (n,) of each encoded batch."""
        inputs = self.student.query_inputs if queries else self.student.passage_inputs
        encode = self.student.encode_queries if queries else self.student.encode_passages

        def states(rows: NDArray[np.integer]) -> States:
            return encode(**{name: tensor.to(self._device) for name, tensor in inputs(tokens.take(rows)).items()})

        def batches() -> Iterator[tuple[NDArray[np.integer], States]]:
            for rows, encodings in self._batches(frame.lengths(tokens).clip(1), states, self._together):
                yield rows, encodings
                on_progress(rows)

        encoded = Encoded.of(batches(), len(tokens.rows), sparse=self.student.sparse)
        if not torch.isfinite(encoded.values).all():
            raise ModelError("vectors are not finite", found="overflow in the encoder", todo="use float32")
        return encoded
