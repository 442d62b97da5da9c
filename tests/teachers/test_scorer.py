from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from teachers.engine.engine import load_scorer
from teachers.scorer import Scorer, pairs_of
from teachers.settings import ScoringSettings
from tests.tiny_models import Kind


def test_pairs_hold_each_text_once_in_order_of_first_use() -> None:
    pairs = pairs_of([("q1", "p1"), ("q2", "p1"), ("q1", ""), ("q1", "p1")])
    assert pairs.queries == ["q1", "q2"]
    assert pairs.passages == ["p1", ""]
    assert pairs.query.tolist() == [0, 1, 0, 0]
    assert pairs.passage.tolist() == [0, 0, 1, 0]
    assert pairs.query.dtype == np.int32


def test_a_teacher_is_a_scorer(tiny: Callable[[Kind], Path]) -> None:
    scorer: Scorer = load_scorer(str(tiny("bert")), ScoringSettings(max_length_tokens=20))
    assert scorer.score(pairs_of([("ice", "water")])).shape == (1,)
    assert len(scorer.fingerprint) == 32
