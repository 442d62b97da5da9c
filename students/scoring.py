"""A trained student as a scorer: cross-encoders by the teachers' engine, dense ones by their vectors."""

from __future__ import annotations

import json

from students.encoding import DenseScorer
from students.loading import architecture_of
from students.settings import STUDENT_FILE
from teachers.checkpoint import resolve
from teachers.engine import load_scorer
from teachers.scorer import Scorer
from teachers.settings import Dtype, ScoringSettings


def load_student_scorer(checkpoint: str, dtype: Dtype = "float32") -> Scorer:
    """The scorer of a student's directory, a local directory or a Hub name, with the lengths it was trained with."""
    if architecture_of(checkpoint) == "bert_dot":
        return DenseScorer(checkpoint, ScoringSettings(dtype=dtype))
    file = resolve(checkpoint).directory / STUDENT_FILE
    if not file.is_file():
        return load_scorer(checkpoint, ScoringSettings(dtype=dtype))
    trained = json.loads(file.read_text(encoding="utf-8"))["settings"]["student"]["max_length_tokens"]
    return load_scorer(checkpoint, ScoringSettings(dtype=dtype, max_length_tokens=trained))
