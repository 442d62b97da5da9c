import numpy as np
import pytest

from pipeline.triples.build import TripleSettings, build_triples
from pipeline.triples.ensemble import Ensemble, Sample
from pipeline.triples.scales import scale_warnings, zscore_threshold
from tests import worlds

ALIKE, UNLIKE = [[1, 0.9], [0.9, 1]], [[1, 0.1], [0.1, 1]]
SPREADS, UNCORRELATED = "spreads of the teachers differ", "do not correlate"


def mixed(weights=(1.0, 1.0), scales=(1.0, 1.0)):
    return Ensemble(("a", "b"), weights, scales)


@pytest.mark.parametrize(
    ("ensemble", "spread", "correlations", "expected"),
    [
        (mixed(), [1, 2.9], ALIKE, []),
        (mixed(), [1, 3.1], ALIKE, [SPREADS]),
        (mixed(), [3.1, 1], ALIKE, [SPREADS]),
        (mixed(), [1, 0], ALIKE, [SPREADS]),
        (mixed(), [0, 0], ALIKE, []),
        (mixed(), [1, 1], UNLIKE, [UNCORRELATED]),
        (mixed(), [1, 1], [[1, -0.9], [-0.9, 1]], [UNCORRELATED]),
        (mixed(), [1, 9], UNLIKE, [SPREADS, UNCORRELATED]),
        (mixed(scales=(1.0, 9.0)), [1, 9], ALIKE, []),  # z-scores
        (mixed(scales=(1.0, 9.0)), [1, 9], UNLIKE, [UNCORRELATED]),
        (mixed(weights=(9.0, 1.0)), [1, 9], ALIKE, []),  # weights that make up for the scales
        (mixed(weights=(9.0, 1.0)), [1, 1], ALIKE, []),  # weights that are meant
        (mixed(weights=(1.0, 2.0)), [1, 9], ALIKE, [SPREADS]),
        (mixed(weights=(1.0, 0.0)), [1, 9], UNLIKE, []),  # b is not used
        (Ensemble.mean(["a"]), [1], [[1]], []),
    ],
)
def test_what_is_warned_of(ensemble, spread, correlations, expected):
    found = scale_warnings(ensemble, spread, correlations)
    assert len(found) == len(expected) and all(words in text for words, text in zip(expected, found, strict=True))
    fitted = scale_warnings(ensemble, spread, correlations, fitted=True)
    assert [UNCORRELATED in text for text in fitted] == [True] * (UNCORRELATED in expected)


@pytest.mark.parametrize("threshold", [-2.0, 0.0, 1.5, 1000.0])
def test_the_threshold_on_z_scores_keeps_as_many_candidates(threshold):
    rng = np.random.default_rng(3)
    relevant = np.tile([True, False, False, False], 100)
    scores = rng.normal(0, [1, 30], (400, 2)) + relevant[:, None] * [1.0, 20.0]
    sample = Sample(np.repeat(np.arange(100), 4), relevant, ~relevant, scores)
    found = zscore_threshold(TripleSettings(threshold), Ensemble.mean(["a", "b"]), sample)
    spread = [np.std(column) for column in scores.T]
    kept = scaled = 0
    for row in np.flatnonzero(relevant):
        for other in range(row + 1, row + 4):
            margins = scores[row] - scores[other]
            kept += margins.mean() >= threshold
            scaled += (margins / spread).mean() >= found
    assert abs(scaled - kept) <= 1
    assert zscore_threshold(TripleSettings(None), Ensemble.mean(["a", "b"]), sample) is None


def test_a_set_keeps_the_spreads_of_its_teachers(paired):
    worlds.scored(paired, {"a": 1})
    worlds.scored(paired, {"b": 2}, spread=50)
    plain = build_triples(paired, TripleSettings(3.0), name="plain")
    assert 3 < plain.spreads["a"] < 5 and 40 < plain.spreads["b"] < 60
    assert SPREADS in plain.scale_warnings[0] and "mostly follows b" in plain.scale_warnings[0]
    again = build_triples(paired, TripleSettings(3.0), name="plain")
    assert again.unchanged and again.scale_warnings == plain.scale_warnings
    options = TripleSettings(plain.zscore_threshold, ensemble="zscore")
    scaled = build_triples(paired, options, name="scaled")
    assert not any(SPREADS in text for text in scaled.scale_warnings)
    # The sample has all shards here, so the same number is left.
    assert scaled.rows == pytest.approx(plain.rows, abs=2)
    assert not build_triples(paired, TripleSettings(None), name="one", teachers=["b"]).scale_warnings
