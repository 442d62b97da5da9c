"""Paired significance tests of two systems on the same queries, and a correction for multiple comparisons.

The t-test and the randomisation test are those that Smucker, Allan and Carterette (CIKM 2007) recommend for retrieval.
Holm's correction (1979) bounds the probability of at least one false positive among all comparisons.

Shapes: Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_1samp

PERMUTATIONS = 20_000
"""Random sign flips of a randomisation test."""
ROUNDING = 1e-9
"""Differences smaller than this are rounding errors: means over several seeds differ in their last bits."""


class Comparison(NamedTuple):
    """Two systems compared on the same queries."""

    difference: float
    """Mean of the first minus mean of the second."""
    wins: int
    """Queries on which the first is better."""
    losses: int
    """Queries on which the second is better."""
    t_test: float
    """Two-sided p-value of the paired t-test; NaN where the test is not defined: a single query, or differences that
    are all the same. 1 without any difference."""
    randomisation: float
    """Two-sided p-value of the randomisation test."""


def compare(first: NDArray[np.floating], second: NDArray[np.floating], seed: int = 0) -> Comparison:
    """Compare the values (Q,) that a measure gives to two systems, query by query.

    Raises:
        ValueError: the numbers of queries differ, there is none, or a value is not finite.
    """
    if first.shape != second.shape or not first.size:
        raise ValueError(f"values of {first.shape} and {second.shape} queries cannot be paired")
    difference = np.asarray(first, np.float64) - second
    if not np.isfinite(difference).all():
        raise ValueError(f"values of {int((~np.isfinite(difference)).sum())} queries are not finite")
    difference[np.abs(difference) < ROUNDING] = 0.0
    return Comparison(
        float(difference.mean()),
        int((difference > 0).sum()),
        int((difference < 0).sum()),
        t_test(difference),
        randomisation_test(difference, seed),
    )


def t_test(difference: NDArray[np.floating]) -> float:
    """Two-sided p-value of the paired t-test for differences (Q,); NaN if they do not vary, 1 if all are 0.

    The test divides by the standard deviation. If that is 0, or no more than what rounding leaves of it, the result
    would be a p-value of 0, even for a single query.
    """
    if not difference.any():
        return 1.0
    return float(ttest_1samp(difference, 0.0).pvalue) if np.ptp(difference) > ROUNDING else float("nan")


def randomisation_test(difference: NDArray[np.floating], seed: int = 0) -> float:
    """Two-sided p-value: the fraction of random sign flips of the differences (Q,) whose mean is as far from 0.

    The observed differences count as one of the flips, so the smallest p-value is 1 / (PERMUTATIONS + 1).
    """
    rng = np.random.default_rng(seed)
    observed, as_far, block = abs(float(difference.sum())), 1, 1_000
    for _ in range(PERMUTATIONS // block):
        signs = rng.integers(0, 2, (block, len(difference)), dtype=np.int8) * 2 - 1
        as_far += int((np.abs(signs @ difference) >= observed - ROUNDING).sum())
    return as_far / (PERMUTATIONS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted by Holm's method, in the order given.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = np.zeros(len(p_values)), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = largest
    return [float(value) for value in adjusted]
