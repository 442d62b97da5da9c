"""What training minimises: a weighted sum of losses over the scores of one batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from students.settings import IN_BATCH, LossName, TrainSettings, parse_loss
from students.training.losses import (
    bce,
    false_negatives,
    in_batch_margin_mse,
    kl,
    margin_mse,
    mnrl,
    pointwise_mse,
    ranknet,
    weighted_ranknet,
)

_FROM_TEACHER = {"margin_mse": margin_mse, "pointwise_mse": pointwise_mse, "weighted_ranknet": weighted_ranknet}
_FROM_LABELS = {"ranknet": ranknet, "bce": bce}


class Targets(NamedTuple):
    """What B queries with K candidates each are to learn."""

    query_ids: Tensor
    """(B,)"""
    passage_ids: Tensor
    """(B, K), the positive first."""
    teacher: Tensor | None
    """(B, K) raw logits."""
    weights: Tensor
    """(B,), of mean 1 over the whole batch."""
    in_batch: Tensor | None = None
    """(B, B*K), the in-batch teacher's scores of each query with all passages."""


class Objective:
    """The loss of `settings`, FLOPS included."""

    def __init__(self, settings: TrainSettings) -> None:
        self._settings, self._terms = settings, parse_loss(settings.loss)
        self.in_batch = any(term.name in IN_BATCH for term in self._terms)
        """Whether the scores of each query with all passages of the batch are asked for."""

    def __call__(self, scores: Tensor, targets: Targets, penalties: Tensor | None = None) -> Tensor:
        """The loss, a number.

        Args:
            scores: (B, K), or (B, B*K) if `in_batch`.
            targets: of the same queries.
            penalties: (2,), of queries and passages.
        """
        count, k = targets.passage_ids.shape
        every = scores
        if self.in_batch:
            own = torch.arange(count, device=scores.device)[:, None] * k + torch.arange(k, device=scores.device)
            scores = every.gather(1, own)  # (B, K)
        loss = sum(term.factor * self._one(term.name, scores, every, targets) for term in self._terms)
        assert isinstance(loss, Tensor)
        # A part that only keeps workers in step counts nothing.
        if penalties is not None and targets.weights.any():
            weights = penalties.new_tensor([self._settings.flops_query, self._settings.flops_passage])
            loss = loss + (weights * penalties).sum()
        return loss

    def _one(self, name: LossName, scores: Tensor, every: Tensor, targets: Targets) -> Tensor:
        weights, teacher = targets.weights, targets.teacher
        if name in _FROM_LABELS:
            return _FROM_LABELS[name](scores, weights)
        if name in IN_BATCH:
            return self._in_batch(name, every, targets)
        assert teacher is not None
        if name == "kl":
            return kl(scores, teacher, self._settings.temperature, weights)
        return _FROM_TEACHER[name](scores, teacher, weights)

    def _in_batch(self, name: LossName, every: Tensor, targets: Targets) -> Tensor:
        count, k = targets.passage_ids.shape
        positives = torch.arange(count, device=every.device) * k
        if name == "mnrl":
            excluded = false_negatives(targets.query_ids, targets.passage_ids)
            return mnrl(every, positives, excluded, self._settings.mnrl_scale, targets.weights)
        assert targets.in_batch is not None
        if name == "in_batch_kl":
            return kl(every, targets.in_batch, self._settings.temperature, targets.weights)
        return in_batch_margin_mse(every, targets.in_batch, positives, targets.weights)
