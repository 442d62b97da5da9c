"""Losses over a batch of candidate scores: pure functions of tensors.

B queries, K candidates of each; column 0 is the positive, the others are negatives. Scores are raw. Every loss is a
mean over queries; `weights` (B,), of mean 1 over the whole batch, makes it a weighted one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def margin_mse(scores: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared difference of student and teacher margins, positive minus negative.

    Hofstätter et al. 2020 (arXiv 2010.02666), equation 7; with several negatives, the mean over all of them.
    """
    return _mean((_margins(scores) - _margins(teacher)).square(), weights)


def pointwise_mse(scores: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean squared difference of student and teacher scores, over all candidates.

    With one negative this is the mean of its two halves in Hofstätter et al. 2020 (arXiv 2010.02666), equation 5.
    """
    return _mean((scores - teacher).square(), weights)


def weighted_ranknet(scores: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    """RankNet, each pair times the teacher's margin: (t+ - t-) log(1 + exp(-(s+ - s-))).

    Hofstätter et al. 2020 (arXiv 2010.02666), equation 6. Deviation: a negative margin counts 0 and stays in the
    mean; left negative it would be gained without end.
    """
    return _mean(_margins(teacher).clamp(min=0) * functional.softplus(-_margins(scores)), weights)


def ranknet(scores: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross entropy of "the positive beats the negative", the mean over all negatives.

    Burges et al. 2005, "Learning to rank using gradient descent": log(1 + exp(-(s+ - s-))).
    """
    return _mean(functional.softplus(-_margins(scores)), weights)


def bce(scores: Tensor, weights: Tensor | None = None) -> Tensor:
    """Binary cross entropy of each pair's relevance: the positive is 1, every negative 0."""
    labels = torch.zeros_like(scores)
    labels[:, 0] = 1.0
    return _mean(functional.binary_cross_entropy_with_logits(scores, labels, reduction="none"), weights)


def kl(scores: Tensor, teacher: Tensor, temperature: float = 1.0, weights: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence of the student's distribution over the candidates from the teacher's.

    Hinton et al. 2015 (arXiv 1503.02531): softmax of scores over the temperature, times its square, so that
    gradients keep their size.
    """
    ours, theirs = (functional.log_softmax(x / temperature, dim=1) for x in (scores, teacher))
    divergence = (theirs.exp() * (theirs - ours)).sum(1, keepdim=True)
    return _mean(divergence, weights) * temperature**2


def mnrl(scores: Tensor, own: Tensor, excluded: Tensor, scale: float = 1.0, weights: Tensor | None = None) -> Tensor:
    """Cross entropy of the positive among all passages of the batch, hard negatives included.

    Henderson et al. 2017 (arXiv 1705.00652), section 4.4; sentence-transformers' MultipleNegativesRankingLoss.

    Args:
        scores: (B, N), of each query with every passage of the batch.
        own: (B,), column of each query's positive.
        excluded: (B, N), True for what must not count as a negative: see `false_negatives`.
        scale: what scores are multiplied with.
        weights: (B,)
    """
    logits = (scores * scale).masked_fill(excluded, -torch.inf)
    return _mean(functional.cross_entropy(logits, own, reduction="none").unsqueeze(1), weights)


def in_batch_margin_mse(scores: Tensor, teacher: Tensor, own: Tensor, weights: Tensor | None = None) -> Tensor:
    """Margin-MSE over all passages of the batch: the positive's score minus that of each other passage.

    Hofstätter et al. 2021 (arXiv 2104.06967), section 3.2: what a teacher that reads query and passage apart adds to
    the triple's own margin, at hardly any cost.

    Args:
        scores: (B, N), of each query with every passage of the batch.
        teacher: (B, N), the teacher's.
        own: (B,), column of each query's positive.
        weights: (B,)
    """
    columns = own[:, None]
    margins, theirs = (every.gather(1, columns) - every for every in (scores, teacher))  # (B, N), own ones 0
    others = scores.shape[1] - 1
    return _mean((margins - theirs).square() * (scores.shape[1] / others), weights)


def false_negatives(query_ids: Tensor, passage_ids: Tensor) -> Tensor:
    """Which of a batch's N = B x K passages are no negatives of each query: (B, N).

    Those are the passages that are the query's own positive, or that of the same query in another row, and all but
    the first column of a passage that stands in several; a query's own positive is never excluded.

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


def _margins(scores: Tensor) -> Tensor:
    return scores[:, :1] - scores[:, 1:]  # (B, K - 1)


def _mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Mean of (B, ·), rows weighted by (B,)."""
    means = values.mean(1)
    return means.mean() if weights is None else (means * weights).mean()
