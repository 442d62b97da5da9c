"""Whether two systems differ on the same queries: paired tests, corrected for how many are made.

The t-test and the randomisation test are those Smucker, Allan and Carterette recommend for retrieval (CIKM 2007);
Holm's correction (1979) bounds the chance of any false claim among all comparisons.

Shapes: Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ttest_rel

PERMUTATIONS = 20_000


class Comparison(NamedTuple):
    """One system against another on the same queries."""

    difference: float
    """Mean of the first minus mean of the second."""
    wins: int
    """Queries on which the first is better."""
    losses: int
    t_test: float
    """p-value, two-sided."""
    randomisation: float
    """p-value, two-sided."""


def compare(one: NDArray[np.floating], other: NDArray[np.floating], seed: int = 0) -> Comparison:
    """Compare values (Q,) and (Q,) of a measure, query by query.

    Raises:
        ValueError: not the same number of queries, or none.
    """
    if one.shape != other.shape or not one.size:
        raise ValueError(f"values of {one.shape} and {other.shape} queries cannot be paired")
    difference = np.asarray(one, np.float64) - other
    changed = bool(difference.any())
    return Comparison(
        float(difference.mean()),
        int((difference > 0).sum()),
        int((difference < 0).sum()),
        float(ttest_rel(one, other).pvalue) if changed and difference.std() else float(not changed),
        randomisation_test(difference, seed),
    )


def randomisation_test(difference: NDArray[np.floating], seed: int = 0) -> float:
    """Share of random sign flips of differences (Q,) whose mean is as far from 0 as the one seen; two-sided.

    The unflipped differences count as one of the flips, so the least value is 1 / (PERMUTATIONS + 1).
    """
    rng = np.random.default_rng(seed)
    seen, as_far, block = abs(float(difference.sum())), 1, 1_000
    for _ in range(PERMUTATIONS // block):
        signs = rng.integers(0, 2, (block, len(difference)), dtype=np.int8) * 2 - 1
        as_far += int((np.abs(signs @ difference) >= seen - 1e-12).sum())
    return as_far / (PERMUTATIONS + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = np.zeros(len(p_values)), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[place]))
        adjusted[place] = largest
    return [float(value) for value in adjusted]
