from itertools import product

import numpy as np
import pytest
from scipy.stats import ttest_rel

from pipeline.evaluation.significance import compare, holm, randomisation_test


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
