"""What training minimises: a weighted sum of losses over the scores of one batch.

Shapes: B queries, K candidates of each, N = B x K passages of the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from students.losses import LOSSES
from students.settings import TrainSettings, parse_loss
from students.training.losses import FUNCTIONS, LossInputs


class Targets(NamedTuple):
    """What B queries with K candidates each are to learn."""

    query_ids: Tensor
    """(B,)"""
    passage_ids: Tensor
    """(B, K), the positive first."""
    teacher: Tensor | None
    """(B, K) raw logits."""
    weights: Tensor
    """(B,), of mean 1 over the global batch."""
    in_batch: Tensor | None = None
    """(B, N), the in-batch teacher's scores of each query with all passages."""


class Objective:
    """The loss of `settings`, including FLOPS."""

    def __init__(self, settings: TrainSettings) -> None:
        self._settings, self._terms = settings, parse_loss(settings.loss)
        self.in_batch = any(LOSSES[term.name].in_batch for term in self._terms)
        """Whether it needs the scores of each query with all passages of the batch."""

    def __call__(self, scores: Tensor, targets: Targets, penalties: Tensor | None = None) -> Tensor:
        """The loss, a scalar.

        Args:
            scores: (B, K), or (B, N) if `in_batch`.
            targets: of the same queries.
            penalties: (2,), the FLOPS of queries and passages.
        """
        inputs = LossInputs(
            self._of_candidates(scores, targets), scores, targets.teacher, targets.in_batch, targets.query_ids,
            targets.passage_ids, targets.weights, self._settings.temperature, self._settings.mnrl_scale,
        )  # fmt: skip
        loss = sum(term.factor * FUNCTIONS[term.name](inputs) for term in self._terms)
        assert isinstance(loss, Tensor)
        # A part that only keeps workers in step has weights of 0 and must not count.
        if penalties is not None and targets.weights.any():
            weights = penalties.new_tensor([self._settings.flops_query, self._settings.flops_passage])
            loss = loss + (weights * penalties).sum()
        return loss

    def _of_candidates(self, scores: Tensor, targets: Targets) -> Tensor:
        """Scores (B, K) of each query's own candidates."""
        if not self.in_batch:
            return scores
        count, k = targets.passage_ids.shape
        columns = torch.arange(count, device=scores.device)[:, None] * k + torch.arange(k, device=scores.device)
        return scores.gather(1, columns)
