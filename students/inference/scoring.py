"""Scorers of students: cross-encoders are scored by the teachers' engine, all others by `SeparateScorer`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ModelError
from students.architectures.base import Student
from students.architectures.separate import SeparateStudent
from students.identity import student_file
from students.inference.loading import architecture_of
from students.inference.scorer import SeparateScorer
from students.token_rows import TextRows
from teachers.checkpoints.checkpoint import resolve
from teachers.checkpoints.inputs import is_moved_by_padding
from teachers.engine.batching import plan_batches
from teachers.engine.device import batch_tokens, choose_device
from teachers.engine.engine import load_scorer
from teachers.scorer import Pairs, Scorer, Work
from teachers.settings import Dtype, ScoringSettings


def load_student_scorer(checkpoint: str, dtype: Dtype = "float32") -> Scorer:
    """The scorer of a student, a local directory or a Hub name, with the maximum lengths of its training."""
    if architecture_of(checkpoint) != "bert_cat":
        return SeparateScorer.load(checkpoint, ScoringSettings(dtype=dtype))
    facts = student_file(resolve(checkpoint).directory)
    if facts is None:
        return load_scorer(checkpoint, ScoringSettings(dtype=dtype))
    length = facts["settings"]["student"]["max_length_tokens"]
    return load_scorer(checkpoint, ScoringSettings(dtype=dtype, max_length_tokens=length))


def scorer_of(student: Student) -> Scorer:
    """The scorer of a student that is being trained; switches it to eval mode."""
    return SeparateScorer(student, ScoringSettings()) if isinstance(student, SeparateStudent) else _JointScorer(student)


class _JointScorer:
    """Scores with the forward pass of a cross-encoder that is being trained, in float32."""

    fingerprint = ""

    def __init__(self, student: Student) -> None:
        settings = ScoringSettings()
        self._student, self._device = student.eval(), choose_device(settings)
        moved = is_moved_by_padding(student.encoder.config.to_dict())  # type: ignore[union-attr, operator]
        self._budget = 1 if moved else batch_tokens(settings, self._device)
        student.to(self._device)

    @torch.inference_mode()
    def score(self, pairs: Pairs, on_progress: Callable[[Work], None] | None = None) -> NDArray[np.float32]:
        """See `teachers.scorer.Scorer`."""
        queries, passages = (TextRows.of(self._student.tokenizer, texts) for texts in (pairs.queries, pairs.passages))
        lengths = queries.texts.lengths(pairs.query) + passages.texts.lengths(pairs.passage)
        scores = np.empty(len(lengths), np.float32)
        for rows in plan_batches(lengths.clip(1, self._student.settings.max_length_tokens), self._budget):
            features = self._student.features(queries.take(pairs.query[rows]), passages.take(pairs.passage[rows]))
            batch_scores = self._student(**{name: tensor.to(self._device) for name, tensor in features.items()})
            scores[rows] = batch_scores.squeeze(1).cpu().numpy()
            if on_progress is not None:
                on_progress(Work(len(rows)))
        if not np.isfinite(scores).all():
            raise ModelError("scores are not finite", found="overflow in the student", todo="lower --learning-rate")
        return scores
