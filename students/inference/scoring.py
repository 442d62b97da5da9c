"""A student as a scorer: trained cross-encoders by the teachers' engine, the others by their encodings."""

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
from teachers.engine.batching import plan_batches
from teachers.engine.device import batch_tokens, choose_device
from teachers.engine.engine import load_scorer
from teachers.scorer import Pairs, Scorer, Work
from teachers.settings import Dtype, ScoringSettings


def load_student_scorer(checkpoint: str, dtype: Dtype = "float32") -> Scorer:
    """The scorer of a student's directory, a local directory or a Hub name, with the lengths it was trained with."""
    if architecture_of(checkpoint) != "bert_cat":
        return SeparateScorer.load(checkpoint, ScoringSettings(dtype=dtype))
    facts = student_file(resolve(checkpoint).directory)
    if facts is None:
        return load_scorer(checkpoint, ScoringSettings(dtype=dtype))
    trained = facts["settings"]["student"]["max_length_tokens"]
    return load_scorer(checkpoint, ScoringSettings(dtype=dtype, max_length_tokens=trained))


def scorer_of(student: Student) -> Scorer:
    """A scorer of a student that is being trained; puts it into eval mode."""
    return SeparateScorer(student, ScoringSettings()) if isinstance(student, SeparateStudent) else _JointScorer(student)


class _JointScorer:
    """A cross-encoder under training, in float32, as its own forward pass has it."""

    fingerprint = ""

    def __init__(self, student: Student) -> None:
        settings = ScoringSettings()
        self._student, self._device = student.eval(), choose_device(settings)
        self._budget = batch_tokens(settings, self._device)
        student.to(self._device)

    @torch.inference_mode()
    def score(self, pairs: Pairs, on_progress: Callable[[Work], None] | None = None) -> NDArray[np.float32]:
        """See `teachers.scorer.Scorer`."""
        queries, passages = (TextRows.of(self._student.tokenizer, texts) for texts in (pairs.queries, pairs.passages))
        lengths = queries.texts.lengths(pairs.query) + passages.texts.lengths(pairs.passage)
        scores = np.empty(len(lengths), np.float32)
        for rows in plan_batches(lengths.clip(1, self._student.settings.max_length_tokens), self._budget):
            features = self._student.features(queries.take(pairs.query[rows]), passages.take(pairs.passage[rows]))
            found = self._student(**{name: tensor.to(self._device) for name, tensor in features.items()})
            scores[rows] = found.squeeze(1).cpu().numpy()
            if on_progress is not None:
                on_progress(Work(len(rows)))
        if not np.isfinite(scores).all():
            raise ModelError("scores that are not finite", found="overflow in the student", todo="lower the rate")
        return scores
