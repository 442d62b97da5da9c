"""Losses over a batch of candidate scores: pure functions of (B, K) tensors.

B queries, K candidates of each; column 0 is the positive, the others are negatives. Scores are raw.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from students.settings import LossName

Loss = Callable[[Tensor, Tensor | None], Tensor]


def margin_mse(scores: Tensor, teacher: Tensor | None) -> Tensor:
    """Mean squared difference of student and teacher margins, positive minus negative.

    Hofstätter et al. 2020 (arXiv 2010.02666), equation 7; with several negatives, the mean over all of them.
    """
    assert teacher is not None
    return functional.mse_loss(_margins(scores), _margins(teacher))


def ranknet(scores: Tensor, teacher: Tensor | None) -> Tensor:  # noqa: ARG001 — one signature for all losses
    """Cross entropy of "the positive beats the negative", the mean over all negatives.

    Burges et al. 2005, "Learning to rank using gradient descent": log(1 + exp(-(s+ - s-))).
    """
    return functional.softplus(-_margins(scores)).mean()


def bce(scores: Tensor, teacher: Tensor | None) -> Tensor:  # noqa: ARG001
    """Binary cross entropy of each pair's relevance: the positive is 1, every negative 0."""
    labels = torch.zeros_like(scores)
    labels[:, 0] = 1.0
    return functional.binary_cross_entropy_with_logits(scores, labels)


def _margins(scores: Tensor) -> Tensor:
    return scores[:, :1] - scores[:, 1:]  # (B, K - 1)


LOSSES: dict[LossName, Loss] = {"margin_mse": margin_mse, "ranknet": ranknet, "bce": bce}
