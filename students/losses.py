"""The registry of losses: every loss's name and what it learns from.

Imports no torch, so that settings are checked and runs are planned without it. The functions, with their papers, are in
`students.training.losses`, under the same names. To add a loss, add an entry here and the function there.
"""

from __future__ import annotations

from typing import NamedTuple


class Loss(NamedTuple):
    """What a loss learns from; with all defaults, from labels: the first candidate is the positive."""

    teacher_scores: bool = False
    """The teacher scores that triples and lists carry."""
    in_batch_teacher: bool = False
    """A teacher that scores each query with all passages of the batch during training."""
    in_batch: bool = False
    """The student's scores of each query with all passages of the batch."""


LOSSES: dict[str, Loss] = {
    "margin_mse": Loss(teacher_scores=True),
    "pointwise_mse": Loss(teacher_scores=True),
    "weighted_ranknet": Loss(teacher_scores=True),
    "ranknet": Loss(),
    "bce": Loss(),
    "mnrl": Loss(in_batch=True),
    "kl": Loss(teacher_scores=True),
    "in_batch_margin_mse": Loss(in_batch_teacher=True, in_batch=True),
    "in_batch_kl": Loss(in_batch_teacher=True, in_batch=True),
}
