"""Combines the raw logits of several teachers into one score: a weighted mean of scaled logits.

- `mean`: all weights and scales are 1 (Hofstätter et al. 2020, arXiv 2010.02666, section 3.3).
- `weighted`: weights are given, or fitted to rank judged positives above the other passages.
- `zscore`: the logits of each teacher are divided by their standard deviation, because Margin-MSE ignores a shift of
  the scores but not their scale. Scores and thresholds are then in standard deviations, and scores are centred.

Scales, fitted weights and correlations come from a fixed sample of shards, so equal inputs give equal values.

Shapes: N pairs, M margins, K teachers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.errors import PrepError, UsageError, WorkspaceError
from pipeline.triples.settings import TripleSettings

FIT_STEPS = 2_000


@dataclass(frozen=True)
class Sample:
    """Scored pairs of some shards, in file order."""

    query: np.ndarray  # (N,) int32
    positive: np.ndarray  # (N,) bool
    negative: np.ndarray  # (N,) bool
    scores: np.ndarray  # (N, K) float64 raw logits of K teachers

    @property
    def spread(self) -> np.ndarray:
        """Population standard deviation of each teacher's logits, (K,)."""
        return np.asarray(self.scores.std(axis=0))

    def margins(self) -> np.ndarray:
        """Margins (M, K) of every positive over every negative of its query, for each teacher."""
        pieces = [np.empty((0, self.scores.shape[1]))]
        for row in np.flatnonzero(self.positive):
            start, end = np.searchsorted(self.query, [self.query[row], self.query[row] + 1])
            others = np.flatnonzero(self.negative[start:end]) + start
            pieces.append(self.scores[row] - self.scores[others])
        return np.concatenate(pieces)

    def correlations(self) -> list[list[float]]:
        """Pearson correlations (K, K); a teacher with constant scores has 0 with all others."""
        spread = self.spread
        scaled = (self.scores - self.scores.mean(axis=0)) / np.where(spread > 0, spread, 1)
        correlations = np.where(np.outer(spread, spread) > 0, scaled.T @ scaled / len(scaled), 0)
        np.fill_diagonal(correlations, 1)
        return [[round(float(value), 6) for value in row] for row in correlations]


@dataclass(frozen=True)
class Ensemble:
    """score = Σ weight · logit / scale / Σ weight - centre.

    >>> ensemble = Ensemble(("a", "b"), weights=(3.0, 1.0), scales=(1.0, 2.0))
    >>> ensemble.combine(np.array([[4.0, 8.0]]))
    array([4.])
    """

    teachers: tuple[str, ...]
    weights: tuple[float, ...]
    scales: tuple[float, ...]
    centre: float = 0.0

    @classmethod
    def mean(cls, teachers: Sequence[str]) -> Ensemble:
        """The mean of raw logits: all weights and scales 1."""
        ones = (1.0,) * len(teachers)
        return cls(tuple(teachers), ones, ones)

    @classmethod
    def from_dict(cls, recorded: Mapping[str, Any]) -> Ensemble:
        """The inverse of `as_dict`."""
        weights, scales = recorded["weights"], recorded["scales"]
        return cls(tuple(weights), tuple(weights.values()), tuple(scales[name] for name in weights), recorded["centre"])

    def combine(self, values: np.ndarray) -> np.ndarray:
        """Margins (M,) of the ensemble from margins (M, K) of its teachers; or scores from scores, without centring."""
        return np.asarray((values / self.scales) @ np.array(self.weights) / sum(self.weights))

    def as_dict(self) -> dict[str, object]:
        """For a footer."""
        return {
            "weights": dict(zip(self.teachers, self.weights, strict=True)),
            "scales": dict(zip(self.teachers, self.scales, strict=True)),
            "centre": self.centre,
        }


def resolve(settings: TripleSettings, teachers: Sequence[str], sample: Sample) -> Ensemble:
    """The ensemble of these settings, with scales and weights from the sample.

    Raises:
        UsageError: the weights name other teachers.
        WorkspaceError: a teacher gives all pairs the same score, which cannot be scaled.
        PrepError: no weights can be fitted.
    """
    plain = Ensemble.mean(teachers)
    if settings.ensemble == "weighted":
        weights = settings.weights
        if weights is None:
            return replace(plain, weights=tuple(fit_weights(sample).tolist()))
        if set(weights) != set(teachers):
            raise UsageError("a weight for each teacher", expected=", ".join(teachers), found=", ".join(weights))
        return replace(plain, weights=tuple(float(weights[teacher]) for teacher in teachers))
    if settings.ensemble == "zscore" and len(sample.query):
        spread = sample.spread
        if not (spread > 0).all():
            flat = ", ".join(teacher for teacher, value in zip(teachers, spread, strict=True) if not value > 0)
            raise WorkspaceError(f"teacher {flat} gives all pairs the same score", todo="leave it out: --teacher")
        centre = float((sample.scores / spread).mean(axis=0).mean())
        return replace(plain, scales=tuple(spread.tolist()), centre=centre)
    return plain


def fit_weights(sample: Sample) -> np.ndarray:
    """Weights (K,) ≥ 0 with sum 1 that minimise the logistic loss of the margins, by projected gradient descent.

    Raises:
        PrepError: the sample has no query with a positive and a negative.
    """
    margins = sample.margins()
    if not len(margins):
        raise PrepError(
            "no weights can be fitted: no query of the sample has both a positive and a negative", todo="give --weight"
        )
    scale = max(float(np.abs(margins).max()), 1e-30)
    margins = margins / scale
    step = 4 * len(margins) / max(float(np.linalg.eigvalsh(margins.T @ margins)[-1]), 1e-30)
    weights = np.full(margins.shape[1], 1 / margins.shape[1])
    for _ in range(FIT_STEPS):
        pull = margins.T @ (1 / (1 + np.exp(margins @ weights))) / len(margins)
        moved = np.maximum(weights + step * pull, 0)
        if np.abs(moved - weights).max() <= 1e-9 * max(moved.max(), 1):
            break
        weights = moved
    if not weights.sum() > 0:
        return np.full(len(weights), 1 / len(weights))
    return np.asarray(weights / weights.sum())
