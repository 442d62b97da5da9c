import numpy as np
import pytest

from pipeline.errors import PrepError, UsageError
from pipeline.triples.build import TripleSettings
from pipeline.triples.thresholds import explore_thresholds
from tests import worlds
from tests.pipeline.triples.triple_reference import World, triples

TEACHERS = ["a", "b", "c"]
GRID = [0.0, 0.5, 1.0, 3.0, 7.5]


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    return worlds.graded(tmp_path_factory.mktemp("explored"))


@pytest.mark.parametrize("level", [1, 2])
def test_the_table_equals_a_build_at_every_threshold(graded, level):
    world = World(graded, TEACHERS)
    found = explore_thresholds(graded, TripleSettings(relevance_level=level), GRID)
    for row in found.rows:
        expected = triples(world, TripleSettings(row.threshold, relevance_level=level), TEACHERS)
        assert (row.triples, row.queries) == (len(expected), len({query for query, *_ in expected}))
        assert row.held_out == sum(margin >= row.threshold for margin in held_out(world, level))
    every = triples(world, TripleSettings(None, relevance_level=level), TEACHERS)
    assert found.candidates == len(every) and found.held_out == len(held_out(world, level)) > 0
    assert found.spread == pytest.approx(np.std([row[2] for row in every.values()]))


def held_out(world, level):
    """Margins of positives over the other relevant passages of their query."""
    margins = []
    for query, pairs in world.pairs.items():
        if "train" in world.splits[query]:
            for p in pairs:
                for other in pairs:
                    differ = world.texts[p["passage_id"]] != world.texts[other["passage_id"]]
                    if (p["grade"] or 0) >= level and (other["grade"] or 0) >= 1 and differ:
                        totals = [
                            sum(world.scores[t][query, row["passage_id"]] for t in TEACHERS) for row in (p, other)
                        ]
                        margins.append((totals[0] - totals[1]) / 3)
    return margins


def test_a_scale_on_which_3_means_nothing_is_said(graded):
    assert explore_thresholds(graded, TripleSettings(), GRID).warning is None
    scaled = explore_thresholds(graded, TripleSettings(ensemble="zscore"), GRID)
    assert scaled.warning and f"{scaled.equivalent:.3g}" in scaled.warning
    assert scaled.equivalent == pytest.approx(3 * scaled.spread / 4) and scaled.spread < 2


@pytest.mark.parametrize("grid", [[], [1.0, 1.0], [2.0, 1.0], [0.0, float("nan")]])
def test_bad_thresholds(graded, grid):
    with pytest.raises(UsageError, match="ascend"):
        explore_thresholds(graded, TripleSettings(), grid)


def test_no_candidates(graded):
    with pytest.raises(PrepError, match="no candidates"):
        explore_thresholds(graded, TripleSettings(relevance_level=5), GRID)
