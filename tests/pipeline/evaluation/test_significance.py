from itertools import product

import numpy as np
import pytest
from scipy.stats import ttest_rel

from pipeline.evaluation.significance import PERMUTATIONS, compare, holm, randomisation_test


def test_a_comparison():
    rng = np.random.default_rng(1)
    one, other = rng.random(40), rng.random(40)
    found = compare(one, other)
    assert found.difference == pytest.approx(one.mean() - other.mean())
    assert (found.wins, found.losses) == ((one > other).sum(), (one < other).sum())
    assert found.t_test == pytest.approx(ttest_rel(one, other).pvalue)
    same = compare(one, one)
    assert (same.difference, same.t_test, same.randomisation) == (0, 1, 1)


def test_the_randomisation_test_against_all_flips():
    difference = np.array([0.5, 0.2, -0.1, 0.4, 0.0, 0.3, 0.25, -0.05])
    flips = np.array(list(product([1, -1], repeat=len(difference))))
    exact = (np.abs(flips @ difference) >= abs(difference.sum()) - 1e-12).mean()
    assert randomisation_test(difference) == pytest.approx(exact, abs=0.01)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_what_cannot_be_paired():
    with pytest.raises(ValueError, match="cannot be paired"):
        compare(np.ones(3), np.ones(4))
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match="values of 1 queries are not finite"):
            compare(np.array([0.5, wrong]), np.array([0.5, 0.5]))


@pytest.mark.parametrize("shift", [0.1, -0.1, 1 / 3, 1.0])
def test_a_constant_difference_has_no_t_test(shift):
    values = np.random.default_rng(3).random(30)  # the shifted values differ by rounding errors
    found = compare(values + shift, values)
    assert np.isnan(found.t_test) and found.difference == pytest.approx(shift)
    assert (found.wins, found.losses) == ((30, 0) if shift > 0 else (0, 30))
    assert found.randomisation == pytest.approx(1 / (PERMUTATIONS + 1))


def test_a_single_query_is_no_evidence():
    found = compare(np.array([1.0]), np.array([0.0]))
    assert np.isnan(found.t_test) and found.randomisation == 1 and found.wins == 1
    assert compare(np.array([0.5]), np.array([0.5])).t_test == 1


def test_rounding_errors_are_ties():
    ones = np.full(20, 0.3)
    found = compare(ones, ones + np.linspace(1e-17, 1e-12, 20))
    assert found == compare(ones, ones) and (found.wins, found.losses, found.t_test) == (0, 0, 1)


def test_the_t_test_is_that_of_small_differences():
    one = np.array([0.5, 0.25, 0.125, 0.75])
    other = one + np.array([1e-4, -1e-4, 2e-4, 1e-4])
    assert compare(one, other).t_test == pytest.approx(ttest_rel(one, other).pvalue, rel=1e-6)
