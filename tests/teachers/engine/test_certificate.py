import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from pipeline.errors import ModelError
from teachers.engine.certificate import certify, kendall_tau, sample_rows


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


def test_the_sample_is_fixed():
    rows = sample_rows(5_000, 7)
    assert len(set(rows.tolist())) == 200 and np.array_equal(rows, sample_rows(5_000, 7))
    assert [len(sample_rows(pairs, 0)) for pairs in (20_000, 500_000)] == [400, 512]
    assert not np.array_equal(rows, sample_rows(5_000, 8)) and sample_rows(5, 0).tolist() == [0, 1, 2, 3, 4]
