from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from pipeline.errors import ModelError
from teachers.engine.certificate import LEAST_TAU, PrecisionError, certify, kendall_tau, sample_rows


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=30))
def test_tau_is_that_of_scipy(rows):
    one, other = np.array(rows, float).T
    expected = kendalltau(one, other).statistic
    assert kendall_tau(one, other)[0] == pytest.approx(1.0 if np.isnan(expected) else expected)


def test_the_error_of_tau_is_that_of_repeated_samples():
    rng = np.random.default_rng(0)
    everyone = rng.normal(size=20_000)
    noisy = everyone + 0.02 * rng.normal(size=20_000)
    rows = [rng.choice(20_000, 200, replace=False) for _ in range(200)]
    found = np.array([kendall_tau(everyone[row], noisy[row]) for row in rows])
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.2)


def test_a_certificate_tells_what_moved():
    reference = np.linspace(-4, 4, 128, dtype=np.float32)
    moved = reference.copy()
    moved[[3, 9]] += np.float32(0.5)
    found = certify(moved, reference)
    assert (found.pairs, found.max_difference) == (128, pytest.approx(0.5))
    assert found.mean_difference == pytest.approx(1 / 128) and found.score_deviation == pytest.approx(reference.std())


def test_too_far_is_refused():
    reference = np.linspace(-4, 4, 128, dtype=np.float32)
    noise = np.random.default_rng(0).normal(size=128).astype(np.float32)
    certify(reference + 0.01 * noise, reference).check("bfloat16", "here")
    with pytest.raises(ModelError, match="mean difference"):
        certify(reference + np.float32(0.2), reference).check("bfloat16", "here")  # same order, other distances
    swapped = reference.copy()
    swapped[:60] = swapped[:60].reshape(-1, 6)[:, ::-1].ravel()
    with pytest.raises(ModelError, match="stray too far"):
        certify(swapped, reference).check("int8", "here")
    certify(-reference[:50], reference[:50]).check("bfloat16", "here")  # too few to judge by


def test_an_order_that_is_lost_is_refused_though_the_distances_are_kept():
    """Tau's own bound: most pairs in a narrow band, a few far away."""
    band, far = np.linspace(-0.01, 0.01, 140, dtype=np.float32), np.array([-9, -8, 8, 9], np.float32)
    reference = np.concatenate([band, far])
    found = certify(np.concatenate([band[::-1], far]), reference)
    assert found.mean_difference < 0.02 * found.score_deviation / 2
    for dtype in LEAST_TAU:
        with pytest.raises(PrecisionError, match="Kendall tau"):
            found.check(dtype, "here")
        certify(np.concatenate([band, far]), reference).check(dtype, "here")
    # Within the sample's doubt it passes, and the bound of each dtype is its own.
    for tau, error, refused in ((0.993, 0.0, True), (0.993, 0.002, False), (0.996, 0.0, False)):
        judged = replace(found, kendall_tau=tau, tau_error=error)
        if refused:
            with pytest.raises(PrecisionError):
                judged.check("bfloat16", "here")
            judged.check("int8", "here")
        else:
            judged.check("bfloat16", "here")


def test_the_sample_is_fixed():
    rows = sample_rows(5_000, 7)
    assert len(set(rows.tolist())) == 200 and np.array_equal(rows, sample_rows(5_000, 7))
    assert [len(sample_rows(pairs, 0)) for pairs in (20_000, 500_000)] == [400, 512]
    assert not np.array_equal(rows, sample_rows(5_000, 8)) and sample_rows(5, 0).tolist() == [0, 1, 2, 3, 4]
