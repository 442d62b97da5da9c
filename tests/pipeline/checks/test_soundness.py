"""Faults of the tables of a workspace."""

from pipeline.checks.soundness import data_problems
from pipeline.scores.pairs import load_pairs
from pipeline.scores.scores import read_pair_ids, read_scores, write_scores
from tests import worlds


def test_scores_of_two_models_are_a_problem(paired):
    worlds.scored(paired, {"a": 1})
    assert not list(data_problems(paired))
    pairs = load_pairs(paired)
    ids, scores = read_pair_ids(pairs.paths[0]), read_scores(paired.parts("scores", "a")[0])
    write_scores(paired, "a", 0, pairs.footers[0], ids, scores, {"fingerprint": "another"}, {})
    assert [problem.what for problem in data_problems(paired)] == ["scores of 2 models are mixed"]
