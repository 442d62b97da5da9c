"""Losses over a batch of candidate scores: pure functions of tensors, and the table that calls them by name.

Column 0 is the positive, the others are negatives. Scores are raw logits. Every loss is a mean over queries; `weights`
(B,), of mean 1 over the global batch, make it a weighted mean.

Shapes: B queries, K candidates of each, N = B x K passages of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class LossInputs(NamedTuple):
    """Everything that a loss may read; `students.losses` says which loss needs which teacher."""

    scores: Tensor
    """(B, K), the student's, of each query's own candidates."""
    all_scores: Tensor
    """(B, N), the student's, of each query with every passage of the batch; (B, K) if no loss of the sum needs them."""
    teacher: Tensor | None
    """(B, K)"""
    in_batch_teacher: Tensor | None
    """(B, N)"""
    query_ids: Tensor
    """(B,)"""
    passage_ids: Tensor
    """(B, K)"""
    weights: Tensor | None
    """(B,)"""
    temperature: float
    mnrl_scale: float

    @property
    def positives(self) -> Tensor:
        """(B,), the column of each query's positive in `all_scores`."""
        count, k = self.passage_ids.shape
        return torch.arange(count, device=self.all_scores.device) * k


def margin_mse(scores: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared difference of student and teacher margins, positive minus negative.

    Hofstätter et al. 2020 (arXiv 2010.02666), equation 7; with several negatives, the mean over all of them.

    >>> margin_mse(torch.tensor([[3.0, 1.0]]), torch.tensor([[5.0, 2.0]])).item()  # margins 2 and 3
    1.0
    """
    return _mean((_margins(scores) - _margins(teacher)).square(), weights)


def pointwise_mse(scores: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared difference of student and teacher scores, over all candidates.

    With one negative this is the mean of its two halves in Hofstätter et al. 2020 (arXiv 2010.02666), equation 5.
    """
    return _mean((scores - teacher).square(), weights)


def weighted_ranknet(scores: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """RankNet, each pair weighted by the teacher's margin: (t+ - t-) log(1 + exp(-(s+ - s-))).

    Hofstätter et al. 2020 (arXiv 2010.02666), equation 6. Deviation: a negative margin is set to 0 and stays in the
    mean; as a negative weight it would make the loss unbounded below.
    """
    return _mean(_margins(teacher).clamp(min=0) * functional.softplus(-_margins(scores)), weights)


def ranknet(scores: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross entropy of "the positive scores higher than the negative", the mean over all negatives.

    Burges et al. 2005, "Learning to rank using gradient descent": log(1 + exp(-(s+ - s-))).
    """
    return _mean(functional.softplus(-_margins(scores)), weights)


def bce(scores: Tensor, weights: Tensor | None = None) -> Tensor:
    """Binary cross entropy of each pair's relevance: the positive is 1, every negative 0.

    Nogueira and Cho 2019 (arXiv 1901.04085), equation 1. Deviation: the mean over candidates, not their sum.
    """
    labels = torch.zeros_like(scores)
    labels[:, 0] = 1.0
    return _mean(functional.binary_cross_entropy_with_logits(scores, labels, reduction="none"), weights)


def kl(scores: Tensor, teacher: Tensor, temperature: float = 1.0, weights: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence of the student's distribution over the candidates from the teacher's.

    Hinton et al. 2015 (arXiv 1503.02531), section 2: both are softmaxes of scores divided by the temperature, and the
    divergence is multiplied by its square, which keeps the size of the gradients.
    """
    ours, theirs = (functional.log_softmax(x / temperature, dim=1) for x in (scores, teacher))
    divergence = (theirs.exp() * (theirs - ours)).sum(1, keepdim=True)
    return _mean(divergence, weights) * temperature**2


def mnrl(
    scores: Tensor, positives: Tensor, excluded: Tensor, scale: float = 1.0, weights: Tensor | None = None
) -> Tensor:
    """Cross entropy of the positive among all passages of the batch, hard negatives included.

    Henderson et al. 2017 (arXiv 1705.00652), section 4.4; sentence-transformers' MultipleNegativesRankingLoss.
    Deviation: passages that are known to be relevant, and repeated passages, are no negatives.

    Args:
        scores: (B, N), of each query with every passage of the batch.
        positives: (B,), column of each query's positive.
        excluded: (B, N), True for passages that must not count as negatives: see `false_negatives`.
        scale: factor of the scores.
        weights: (B,)
    """
    logits = (scores * scale).masked_fill(excluded, -torch.inf)
    return _mean(functional.cross_entropy(logits, positives, reduction="none").unsqueeze(1), weights)


def in_batch_margin_mse(scores: Tensor, teacher: Tensor, positives: Tensor, weights: Tensor | None = None) -> Tensor:
    """Margin-MSE over all passages of the batch: the positive's score minus that of each other passage.

    Hofstätter et al. 2021 (arXiv 2104.06967), section 3.2: a teacher that encodes query and passage separately scores
    all pairs of the batch at hardly any cost.

    Args:
        scores: (B, N), of each query with every passage of the batch.
        teacher: (B, N), the teacher's.
        positives: (B,), column of each query's positive.
        weights: (B,)
    """
    columns = positives[:, None]
    margins, theirs = (x.gather(1, columns) - x for x in (scores, teacher))  # (B, N), 0 in the positive's column
    others = scores.shape[1] - 1
    return _mean((margins - theirs).square() * (scores.shape[1] / others), weights)


def false_negatives(query_ids: Tensor, passage_ids: Tensor) -> Tensor:
    """Which passages of the batch are not negatives of each query, (B, N).

    Those are the positives of the same query in any row, and all but the first column of a passage that the batch
    holds several times. The column of a row's own positive is never excluded.

    Args:
        query_ids: (B,)
        passage_ids: (B, K), the positive first.
    """
    count, k = passage_ids.shape
    flat = passage_ids.flatten()  # (N,)
    same_query = query_ids[:, None] == query_ids[None, :]  # (B, B)
    is_positive = flat[None, :] == passage_ids[:, :1]  # (B, N): column j is row i's positive
    relevant = (same_query.float() @ is_positive.float()) > 0
    earlier = torch.ones(count * k, count * k, dtype=torch.bool, device=flat.device).tril(-1)
    repeated = ((flat[:, None] == flat[None, :]) & earlier).any(1)
    excluded = relevant | repeated
    rows = torch.arange(count, device=flat.device)
    excluded[rows, rows * k] = False
    return excluded


FUNCTIONS: dict[str, Callable[[LossInputs], Tensor]] = {
    "margin_mse": lambda x: margin_mse(x.scores, _given(x.teacher), x.weights),
    "pointwise_mse": lambda x: pointwise_mse(x.scores, _given(x.teacher), x.weights),
    "weighted_ranknet": lambda x: weighted_ranknet(x.scores, _given(x.teacher), x.weights),
    "ranknet": lambda x: ranknet(x.scores, x.weights),
    "bce": lambda x: bce(x.scores, x.weights),
    "mnrl": lambda x: mnrl(
        x.all_scores, x.positives, false_negatives(x.query_ids, x.passage_ids), x.mnrl_scale, x.weights
    ),
    "kl": lambda x: kl(x.scores, _given(x.teacher), x.temperature, x.weights),
    "in_batch_margin_mse": lambda x: in_batch_margin_mse(
        x.all_scores, _given(x.in_batch_teacher), x.positives, x.weights
    ),
    "in_batch_kl": lambda x: kl(x.all_scores, _given(x.in_batch_teacher), x.temperature, x.weights),
}
"""Name → loss; the same names as in `students.losses.LOSSES`."""


def _given(scores: Tensor | None) -> Tensor:
    """Scores that settings have ensured."""
    assert scores is not None
    return scores


def _margins(scores: Tensor) -> Tensor:
    return scores[:, :1] - scores[:, 1:]  # (B, K - 1)


def _mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Mean of (B, ·), rows weighted by (B,)."""
    means = values.mean(1)
    return means.mean() if weights is None else (means * weights).mean()
