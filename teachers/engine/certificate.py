"""How far scores of reduced precision stray from float32: measured on a sample, kept with the scores.

In: scores of a sample, and the same pairs scored in float32. Out: a certificate, or an error where the order of
the pairs or their distances have suffered. NumPy only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError

SAMPLE_SHARE = 0.02
"""Pairs of a shard that are scored again, as a share of all; at least and at most as many as follow."""
LEAST_SAMPLE, LARGEST_SAMPLE = 200, 512
LEAST_JUDGED = 100
"""Fewer pairs give too coarse a tau to fail a run by."""
LEAST_TAU = {"bfloat16": 0.995, "float16": 0.995, "int8": 0.99}
DOUBT = 2.0
"""Standard errors by which a sample's tau must fall short, so that chance alone stops no run."""
LARGEST_MEAN_SHARE = 0.02
"""Mean absolute difference, as a share of the standard deviation of the float32 scores."""


class PrecisionError(ModelError):
    """A precision that changes the scores too much."""


@dataclass(frozen=True)
class Certificate:
    """Scores of a sample against float32, in raw logits."""

    pairs: int
    non_finite: int
    """Scores that are no number; 0 in every file, since they are refused."""
    max_difference: float
    mean_difference: float
    score_deviation: float
    """Standard deviation of the float32 scores."""
    kendall_tau: float
    """Agreement of order, tau-b: 1 for the same order."""
    tau_error: float
    """Its standard error, the pairs being a sample."""

    def as_dict(self) -> dict[str, Any]:
        """JSON values for a footer."""
        return asdict(self)

    def check(self, dtype: str, where: object) -> None:
        """Refuse scores that strayed too far.

        Raises:
            PrecisionError: tau or the mean difference is beyond what the dtype is allowed.
        """
        if self.pairs < LEAST_JUDGED:
            return
        allowed = LARGEST_MEAN_SHARE * self.score_deviation
        if self.kendall_tau + DOUBT * self.tau_error < LEAST_TAU[dtype] or self.mean_difference > allowed:
            tau = f"{self.kendall_tau:.4f} ± {self.tau_error:.4f}"
            raise PrecisionError(
                f"scores in {dtype} stray too far from float32",
                where=where,
                expected=f"Kendall tau {LEAST_TAU[dtype]} or more, mean difference {allowed:.2g} or less",
                found=f"{tau} and {self.mean_difference:.2g} over {self.pairs} pairs",
                todo="score in bfloat16 or float32" if dtype == "int8" else "score in float32",
            )


def sample_rows(pairs: int, shard: int) -> NDArray[np.int64]:
    """Rows of a shard that are scored again, ascending; a function of both numbers."""
    count = min(pairs, LARGEST_SAMPLE, max(LEAST_SAMPLE, int(SAMPLE_SHARE * pairs)))
    draw = np.random.default_rng(shard).choice(pairs, count, replace=False)
    return np.sort(draw).astype(np.int64)


def certify(scores: NDArray[np.float32], reference: NDArray[np.float32]) -> Certificate:
    """Compare scores (N,) with float32 scores (N,) of the same pairs."""
    difference = np.abs(scores.astype(np.float64) - reference)
    return Certificate(
        len(scores),
        int(np.count_nonzero(~np.isfinite(scores))),
        float(difference.max(initial=0.0)),
        float(difference.mean()) if len(scores) else 0.0,
        float(reference.std()) if len(scores) else 0.0,
        *kendall_tau(scores, reference),
    )


def kendall_tau(one: NDArray[np.floating], other: NDArray[np.floating]) -> tuple[float, float]:
    """Kendall's tau-b (1945) of two scorings (N,), by all N^2 comparisons; 1 where either orders nothing.

    With its standard error, from the spread of what each row contributes (tau is a U-statistic, Hoeffding 1948).
    """
    signs = [np.sign(np.subtract.outer(scores, scores)) for scores in (one, other)]
    norm = np.sqrt((signs[0] ** 2).sum() * (signs[1] ** 2).sum())
    if not norm:
        return 1.0, 0.0
    rows = len(one) * (signs[0] * signs[1]).sum(axis=1) / norm
    return float(rows.mean()), float(2 * rows.std() / np.sqrt(len(rows)))
